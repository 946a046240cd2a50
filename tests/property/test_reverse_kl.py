"""The reward `reverse_kl`: its expected policy gradient is that of −KL(policy ‖ teacher)."""

from dataclasses import replace

import pytest
import torch

from ebft.baselines.leave_one_out import LeaveOneOut
from ebft.baselines.none import NoBaseline
from ebft.models.tree_log_probs import tree_log_probs
from ebft.plans.strided import Strided
from ebft.rewards.reverse_kl import ReverseKl
from ebft.rollout.records import Rollouts, Terms
from ebft.testing.tiny import VOCAB
from ebft.training.objective import advantages_to_go, policy_gradient_loss
from tests.tiny import tiny_documents, tiny_policy, tiny_resources

G = 2


def resources_with(policy, teacher):
    return replace(tiny_resources(policy), load_other={"teacher": teacher}.get)


def all_rollouts(policy, temperature=1.0):
    """One context with every continuation of two tokens, and their log-probs [1, V², G]."""
    contexts = Strided(start=3, stride=4, rollout_length=G)(tiny_documents([5]))
    assert len(contexts) == 1
    tokens = torch.cartesian_prod(*[torch.arange(VOCAB)] * G)[None]
    mask = torch.ones_like(tokens, dtype=torch.bool)
    rollouts = Rollouts(contexts, tokens, torch.zeros(tokens.shape).double(), mask, temperature)
    log_probs = tree_log_probs(policy, rollouts).rollouts
    sampled = Rollouts(contexts, tokens, log_probs.detach(), mask, temperature)
    return sampled, log_probs


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_expected_gradient_is_that_of_the_divergence(temperature):
    policy, teacher = tiny_policy(0), tiny_policy(1)
    rollouts, log_probs = all_rollouts(policy, temperature)
    weights = list(policy.parameters())
    p = log_probs.sum(-1).exp()
    torch.testing.assert_close(p.sum(), torch.tensor(1.0).double())
    of_teacher = tree_log_probs(teacher, rollouts).rollouts.detach()
    divergence = (p * (log_probs - of_teacher).sum(-1)).sum()
    exact = torch.autograd.grad(divergence, weights, retain_graph=True)

    terms = ReverseKl(teacher="teacher").build(resources_with(policy, teacher))(rollouts, None)
    assert terms.unary.shape == (G, VOCAB**G)
    assert not terms.pairwise.any()
    # Each outcome counts with its probability.
    advantages = advantages_to_go(NoBaseline()(terms), G) * p.detach()[..., None]
    loss = policy_gradient_loss(
        log_probs, rollouts.mask, advantages * VOCAB**G, contexts=1, reduction="sum"
    )
    estimated = torch.autograd.grad(loss, weights)
    for a, b in zip(estimated, exact, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-7)


def test_two_rollouts_are_each_others_baseline():
    """The mean over all pairs of rollouts, each of which leaves out its own token's reward."""
    policy, teacher = tiny_policy(0), tiny_policy(1)
    rollouts, log_probs = all_rollouts(policy)
    terms = ReverseKl(teacher="teacher").build(resources_with(policy, teacher))(rollouts, None)
    p = log_probs.detach().sum(-1).exp()[0]
    first = terms.unary[0]  # [V²]: the first token's rewards
    pairs = torch.cartesian_prod(first, first)
    advantages = LeaveOneOut()(Terms.of_unary(pairs))
    weight = torch.cartesian_prod(p, p).prod(1)
    mean = (weight[:, None] * advantages).sum(0)
    torch.testing.assert_close(mean, torch.zeros(2).double(), atol=1e-12, rtol=0)


def test_tokens_after_the_end_are_worth_nothing():
    policy, teacher = tiny_policy(0), tiny_policy(1)
    rollouts, _ = all_rollouts(policy)
    rollouts.mask[:, :, 1] = False
    terms = ReverseKl(teacher="teacher").build(resources_with(policy, teacher))(rollouts, None)
    assert not terms.unary[1].any()
    assert terms.unary[0].any()


def test_its_own_teacher_rewards_nothing():
    policy = tiny_policy(0)
    rollouts, _ = all_rollouts(policy)
    terms = ReverseKl(teacher="teacher").build(resources_with(policy, policy))(rollouts, None)
    torch.testing.assert_close(terms.unary, torch.zeros_like(terms.unary), atol=1e-12, rtol=0)
