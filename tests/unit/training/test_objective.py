import pytest
import torch

from ebft.plans.completion import Completion
from ebft.plans.strided import Strided
from ebft.training.objective import cross_entropy_mask, policy_gradient_loss
from tests.tiny import tiny_documents


def test_policy_gradient_is_minus_advantage_weighted_log_prob():
    log_probs = torch.tensor([[[-1.0, -2.0], [-3.0, -4.0]]], requires_grad=True)
    mask = torch.tensor([[[True, True], [True, False]]])
    advantages = torch.tensor([[2.0, -1.0]])
    loss = policy_gradient_loss(log_probs, mask, advantages, contexts=1, reduction="sum")
    # −1/2 · (2·(−1−2) + (−1)·(−3))
    assert loss.item() == pytest.approx(1.5)
    loss.backward()
    assert log_probs.grad.tolist() == [[[-1.0, -1.0], [0.5, 0.0]]]


def test_token_mean_divides_by_the_rollouts_own_tokens():
    log_probs = torch.tensor([[[-1.0, -2.0], [-3.0, -4.0]]])
    mask = torch.tensor([[[True, True], [True, False]]])
    loss = policy_gradient_loss(
        log_probs, mask, torch.ones(1, 2), contexts=1, reduction="token_mean"
    )
    assert loss.item() == pytest.approx((1.5 + 3.0) / 2)


def test_no_gradient_through_the_advantages():
    features = torch.ones(1, 2, requires_grad=True)
    log_probs = torch.zeros(1, 2, 1, requires_grad=True)
    mask = torch.ones(1, 2, 1, dtype=torch.bool)
    policy_gradient_loss(log_probs, mask, features, contexts=1, reduction="sum").backward()
    assert features.grad is None


def test_cross_entropy_is_on_completions_or_on_all_but_the_first_token():
    c = Completion(rollout_length=3)(tiny_documents([5, 7], prompt_length=3))
    assert cross_entropy_mask(c, "completion").int().tolist() == [
        [0, 0, 0, 1, 1, 0, 0],
        [0, 0, 0, 1, 1, 1, 1],
    ]
    assert cross_entropy_mask(c, "all").sum(1).tolist() == [4, 6]
    raw = Strided(start=1, stride=1, rollout_length=1)(tiny_documents([4]))
    assert cross_entropy_mask(raw, "completion").int().tolist() == [[0, 1, 1, 1]]
