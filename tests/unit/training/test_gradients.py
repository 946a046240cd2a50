import pytest
import torch

from ebft.plans.strided import Strided
from ebft.samplers.hf_tree import HfTree
from ebft.training.gradients import (
    cross_entropy_gradients,
    measure_gradients,
    policy_gradients,
)
from ebft.training.loop import accumulate_gradients
from ebft.training.objective import ObjectiveOptions
from tests.tiny import tiny_documents, tiny_policy, tiny_resources, trained_on


@pytest.fixture
def step():
    policy = tiny_policy()
    contexts = Strided(start=2, stride=3, rollout_length=4)(tiny_documents([20, 9, 14]))
    rollouts = HfTree(n=2).build(tiny_resources(policy))(contexts, step=0)
    advantages = torch.linspace(-1, 1, 2 * len(contexts), dtype=torch.float64).view(-1, 2)
    return policy, rollouts, advantages


def norm_of(step, **objective):
    policy, rollouts, advantages = step
    policy.zero_grad()
    accumulate_gradients(
        policy, *trained_on(rollouts, advantages), ObjectiveOptions(**objective),
        precision=torch.float32, gradient_checkpointing=False, step=0,
    )  # fmt: skip
    norm = torch.cat([p.grad.flatten() for p in policy.parameters()]).norm()
    policy.zero_grad()
    return float(norm)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_each_part_has_the_norm_of_its_own_gradient(step, checkpointing):
    policy, rollouts, advantages = step
    options = ObjectiveOptions(gamma=0.3)
    measured = measure_gradients(
        policy, *trained_on(rollouts, advantages), options,
        precision=torch.float32, gradient_checkpointing=checkpointing,
    )  # fmt: skip
    assert all(p.grad is None for p in policy.parameters())
    expected = norm_of(step, gamma=0.0)
    assert measured["policy_gradient_grad_norm"] == pytest.approx(expected)
    cross_entropy = norm_of((policy, rollouts, advantages * 0), gamma=0.3)
    assert measured["cross_entropy_grad_norm"] == pytest.approx(cross_entropy)
    assert measured["grad_norm_ratio"] == pytest.approx(expected / cross_entropy)
    assert measured["cross_entropy_noise_scale"] > 0


def test_without_cross_entropy_there_is_no_ratio(step):
    policy, rollouts, advantages = step
    measured = measure_gradients(
        policy,
        *trained_on(rollouts, advantages),
        ObjectiveOptions(gamma=0.0),
        precision=torch.float32,
        gradient_checkpointing=False,
    )
    assert measured["cross_entropy_grad_norm"] == 0
    assert "grad_norm_ratio" not in measured


def test_the_mean_over_documents_is_the_step(step):
    policy, rollouts, advantages = step
    contexts, scored = trained_on(rollouts, advantages)
    options = ObjectiveOptions(gamma=0.0)
    how = {"precision": torch.float32, "gradient_checkpointing": False}
    for gamma, gradients in (
        (0.0, policy_gradients(policy, contexts, scored, options, **how)),
        (1.0, cross_entropy_gradients(policy, contexts, options, **how)),
    ):
        each = [torch.cat([g.flatten() for g in one]) for one in gradients]
        assert len(each) == 3
        factor = advantages * (gamma == 0)
        assert torch.stack(each).mean(0).norm() == pytest.approx(
            norm_of((policy, rollouts, factor), gamma=gamma)
        )
