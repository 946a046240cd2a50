"""Importance weights, exactly, by enumeration, and what they do in a step."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebft.baselines.leave_one_out import LeaveOneOut
from ebft.importance import ImportanceOptions, cap_ratios, importance_ratios, ratio_statistics
from ebft.objective import ObjectiveOptions, policy_gradient_loss
from ebft.rewards.feature_matching import FeatureMatching
from ebft.rollout.records import Features
from ebft.rollout.strided import Strided
from ebft.samplers.hf_tree import HfTree
from ebft.training.loop import accumulate_gradients
from tests.property.strategies import normal, seeds
from tests.tiny import tiny_documents, tiny_policy, tiny_resources, trained_on

EXACT = {"atol": 1e-9, "rtol": 1e-9}
ANY = ImportanceOptions(level="sequence", cap=None)


def two_token_policy(theta):
    """log p of the two tokens of outcomes (a, b), b conditional on a: [4, 2]."""
    first, second = theta[:2].log_softmax(0), theta[2:].view(2, 2).log_softmax(1)
    return torch.stack([first.repeat_interleave(2), second.flatten()], 1)


def off_policy_gradient(seed, *, diversity, level, n=2):
    """The exact mean of the weighted gradient with rollouts from q, and all that it is made of."""
    theta, other = normal(seed, 6), normal(seed + 1, 6)
    phi, truth = normal(seed + 2, 4, 3), normal(seed + 3, 4).softmax(0)
    theta = theta.requires_grad_()
    p, q = two_token_policy(theta), two_token_policy(other)
    index = torch.cartesian_prod(*[torch.arange(4)] * (n + 1))
    samples, reference = index[:, :n], index[:, n]
    chance = (q.sum(1).exp()[samples].prod(1) * truth[reference])[:, None]
    terms = FeatureMatching(diversity=diversity)(
        None, Features(phi[samples], phi[reference][:, None])
    )
    mask = torch.ones(len(index), n, 2, dtype=torch.bool)
    weight = cap_ratios(importance_ratios(p[samples], q[samples], mask, level), ANY)
    loss = policy_gradient_loss(
        p[samples], mask, chance * LeaveOneOut()(terms),
        contexts=1, reduction="sum", weights=weight,
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(loss, theta)
    return gradient, theta.detach(), q.sum(1).exp(), phi, truth


def objective(theta, value):
    return gradient_of_theta(lambda t: value(two_token_policy(t).sum(1).exp()), theta)


def gradient_of_theta(function, theta):
    theta = theta.clone().requires_grad_()
    return torch.autograd.grad(function(theta), theta)[0]


@settings(max_examples=25)
@given(seed=seeds)
def test_sequence_weights_are_unbiased_for_what_a_rollout_earns_by_itself(seed):
    gradient, theta, _, phi, truth = off_policy_gradient(seed, diversity=0, level="sequence")
    exact = objective(theta, lambda p: -2 * (p @ phi) @ (truth @ phi))
    torch.testing.assert_close(gradient, exact, **EXACT)


@settings(max_examples=25)
@given(seed=seeds)
def test_diversity_is_from_the_samplers_rollouts(seed):
    """E_q[w (−2 φ_j·φ_j') ∇log p_j]: the others keep q's mean, where CFM has p's."""
    gradient, theta, q, phi, truth = off_policy_gradient(seed, diversity=1, level="sequence")
    exact = objective(theta, lambda p: 2 * (p @ phi) @ (q @ phi) - 2 * (p @ phi) @ (truth @ phi))
    torch.testing.assert_close(gradient, exact, **EXACT)


def test_weights_of_rollouts_claim_to_be_unbiased_where_they_are():
    objective = ObjectiveOptions(gamma=0.0, importance=ANY)
    assert objective.claim(rollouts_end=True, pairwise=False).unbiased
    assert not objective.claim(rollouts_end=True, pairwise=True).unbiased
    assert ObjectiveOptions(gamma=0.0).claim(rollouts_end=True, pairwise=True).unbiased


def test_token_weights_are_biased_for_sequences():
    gradient, theta, _, phi, truth = off_policy_gradient(3, diversity=0, level="token")
    exact = objective(theta, lambda p: -2 * (p @ phi) @ (truth @ phi))
    assert (gradient - exact).abs().max() > 1e-3


@settings(max_examples=25)
@given(seed=seeds, level=st.sampled_from(["token", "sequence"]))
def test_equal_log_probs_have_weight_one(seed, level):
    log_probs, mask = normal(seed, 3, 2, 4), normal(seed + 1, 3, 2, 4) > 0
    ratio = importance_ratios(log_probs, log_probs, mask, level)
    options = ImportanceOptions(level=level)
    assert (cap_ratios(ratio, options) == 1).all()
    assert tuple(ratio_statistics(ratio.flatten(), options.cap)) == pytest.approx((1, 1, 0, 1))


@settings(max_examples=25)
@given(seed=seeds, cap=st.floats(1.01, 5))
def test_the_cap_truncates_or_masks_and_touches_nothing_below_it(seed, cap):
    trainer, sampler = normal(seed, 4, 3, 5), normal(seed + 1, 4, 3, 5)
    ratio = importance_ratios(trainer, sampler, torch.ones(4, 3, 5, dtype=torch.bool), "token")
    truncated = cap_ratios(ratio, ImportanceOptions(level="token", cap=cap))
    masked = cap_ratios(ratio, ImportanceOptions(level="token", cap=cap, beyond_cap="mask"))
    beyond = ratio > cap
    assert torch.equal(truncated[~beyond], ratio[~beyond])
    assert torch.equal(masked[~beyond], ratio[~beyond])
    assert (truncated[beyond] == cap).all()
    assert (masked[beyond] == 0).all()
    seen = ratio_statistics(ratio.flatten(), cap)
    assert seen.beyond_cap == pytest.approx(float(beyond.double().mean()))
    assert seen.largest == pytest.approx(float(ratio.max()))
    assert 0 < seen.effective <= 1 + 1e-12


def test_a_ratio_that_is_the_cap_is_used_as_it_is():
    ratio = torch.tensor([[[2.0]]])
    for beyond_cap in ("truncate", "mask"):
        options = ImportanceOptions(level="token", cap=2.0, beyond_cap=beyond_cap)
        assert cap_ratios(ratio, options).item() == 2.0
    assert ratio_statistics(ratio.flatten(), 2.0).beyond_cap == 0


def test_a_rollouts_ratio_is_the_product_over_its_own_tokens():
    trainer = torch.tensor([[[-1.0, -2.0, -9.0]]])
    sampler = torch.tensor([[[-1.5, -1.0, 0.0]]])
    mask = torch.tensor([[[True, True, False]]])
    by_token = importance_ratios(trainer, sampler, mask, "token")
    assert by_token.flatten().tolist() == pytest.approx([math.exp(0.5), math.exp(-1.0), 1.0])
    assert importance_ratios(trainer, sampler, mask, "sequence").item() == pytest.approx(
        math.exp(-0.5)
    )


CONTEXTS = Strided(start=2, stride=3, rollout_length=4)(tiny_documents([20, 9, 14]))


def update(policy, rollouts, *, micro_batch=3, **importance):
    policy.zero_grad()
    torch.manual_seed(0)
    losses = accumulate_gradients(
        policy,
        *trained_on(
            rollouts, torch.randn(len(CONTEXTS), 2, dtype=torch.float64), micro_batch=micro_batch
        ),
        ObjectiveOptions(gamma=0.0, importance=ImportanceOptions(**importance)),
        precision=torch.float32, gradient_checkpointing=False, step=0,
    )  # fmt: skip
    return losses, torch.cat([p.grad.flatten() for p in policy.parameters()])


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_on_policy_they_change_nothing_and_off_policy_they_do(level):
    rollouts = HfTree(n=2).build(tiny_resources(tiny_policy()))(CONTEXTS, step=0)
    losses, plain = update(tiny_policy(), rollouts)
    assert losses.policy_gradient.ratios is None
    losses, weighted = update(tiny_policy(), rollouts, level=level)
    torch.testing.assert_close(weighted, plain, atol=1e-9, rtol=1e-7)
    assert tuple(losses.policy_gradient.ratios) == pytest.approx((1, 1, 0, 1), abs=1e-9)
    other = tiny_policy(seed=1)
    losses, weighted = update(other, rollouts, level=level)
    assert losses.policy_gradient.ratios.effective < 0.9
    assert (weighted - update(other, rollouts)[1]).norm() > 1e-3
    parts, divided = update(other, rollouts, level=level, micro_batch=1)
    torch.testing.assert_close(divided, weighted, atol=1e-10, rtol=1e-9)
    assert tuple(parts.policy_gradient.ratios) == pytest.approx(
        tuple(losses.policy_gradient.ratios)
    )
