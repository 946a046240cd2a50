"""Property 5: what may change about rollouts and features without changing the advantages."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebft.baselines.group_mean import GroupMean
from ebft.baselines.group_normalised import GroupNormalised
from ebft.baselines.leave_one_out import LeaveOneOut, leave_one_out
from ebft.baselines.none import NoBaseline
from ebft.baselines.plain_rloo import PlainRloo
from ebft.plans.completion import Completion
from ebft.rewards.feature_matching import FeatureMatching
from ebft.rewards.kernel import KernelScore
from ebft.rollout.records import Features, Terms
from ebft.scoring.kernels import WITH_BANDWIDTH
from ebft.testing.tiny import tiny_documents, tiny_resources
from tests.property.strategies import generator, normal, seeds

BASELINES = [NoBaseline(), LeaveOneOut(), PlainRloo(), GroupMean(), GroupNormalised()]
CENTRED = [LeaveOneOut(), PlainRloo(), GroupMean(), GroupNormalised()]
KERNELS = ("rbf", "multi_rbf", "laplace", "energy", "polynomial")
PARTS = [
    FeatureMatching(),
    FeatureMatching(alignment_similarity="cosine"),
    *(KernelScore(kernel=name) for name in KERNELS),
]
REWARDS = [part.build(tiny_resources()) for part in PARTS]
THREE = SimpleNamespace(
    contexts=Completion(rollout_length=2)(tiny_documents([9] * 3, prompt_length=4))
)
"""As much of rollouts as a reward of features asks for."""
counts = st.integers(2, 6)


def features(seed, n, P=3, m=1, D=4):
    return Features(normal(seed, P, n, D), normal(seed + 1, P, m, D))


def terms(seed, n, P=3):
    """Terms in general position: pairwise ones not symmetric."""
    pairwise = normal(seed, P, n, n)
    pairwise.diagonal(dim1=1, dim2=2).zero_()
    return Terms(normal(seed + 1, P, n), pairwise)


@pytest.mark.parametrize("reward", REWARDS, ids=map(repr, PARTS))
@pytest.mark.parametrize("baseline", BASELINES, ids=repr)
@settings(max_examples=10)
@given(seed=seeds, n=counts)
def test_rollouts_have_no_order(reward, baseline, seed, n):
    f, order = features(seed, n), torch.randperm(n, generator=generator(seed))
    permuted = Features(f.samples[:, order], f.references)
    torch.testing.assert_close(
        baseline(reward(THREE, permuted)), baseline(reward(THREE, f))[:, order]
    )


@pytest.mark.parametrize("baseline", CENTRED, ids=repr)
@settings(max_examples=25)
@given(seed=seeds, n=counts, shift=st.floats(-10, 10))
def test_a_constant_added_to_all_rewards_changes_no_advantage(baseline, seed, n, shift):
    t = terms(seed, n)
    shifted = Terms(t.unary + shift, t.pairwise)
    torch.testing.assert_close(baseline(shifted), baseline(t), atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("baseline", CENTRED, ids=repr)
@settings(max_examples=25)
@given(seed=seeds, n=counts, scale=st.floats(0.1, 10))
def test_advantages_scale_with_rewards(baseline, seed, n, scale):
    """Except the normalised ones, which do not."""
    t = terms(seed, n)
    scaled = baseline(Terms(t.unary * scale, t.pairwise * scale))
    expected = baseline(t) * (1 if isinstance(baseline, GroupNormalised) else scale)
    torch.testing.assert_close(scaled, expected)


@settings(max_examples=25)
@given(seed=seeds, n=counts, scale=st.floats(0.1, 10))
def test_the_linear_reward_scales_with_the_square_of_features(seed, n, scale):
    f = features(seed, n)
    scaled = FeatureMatching()(None, Features(f.samples * scale, f.references * scale))
    torch.testing.assert_close(scaled.reward(), FeatureMatching()(None, f).reward() * scale**2)
    cosine = FeatureMatching(alignment_similarity="cosine", diversity_similarity="cosine")
    same = cosine(None, Features(f.samples * scale, f.references * scale))
    torch.testing.assert_close(same.reward(), cosine(None, f).reward())


@pytest.mark.parametrize("reward", REWARDS, ids=map(repr, PARTS))
@settings(max_examples=15)
@given(seed=seeds, n=counts)
def test_rotations_of_feature_space_change_nothing(reward, seed, n):
    f = features(seed, n)
    Q = torch.linalg.qr(normal(seed + 2, 4, 4)).Q
    rotated = Features(f.samples @ Q, f.references @ Q)
    torch.testing.assert_close(reward(THREE, rotated).reward(), reward(THREE, f).reward())


@settings(max_examples=25)
@given(seed=seeds, n=counts)
def test_leave_one_out_does_not_see_what_it_leaves_out(seed, n):
    """Terms that touch j move b_j not at all, and A_j only through r_j."""
    before, after = terms(seed, n), terms(seed + 7, n)
    for j in range(n):
        unary, pairwise = before.unary.clone(), before.pairwise.clone()
        unary[:, j] = after.unary[:, j]
        pairwise[:, j], pairwise[:, :, j] = after.pairwise[:, j], after.pairwise[:, :, j]
        changed = Terms(unary, pairwise)
        b, same = leave_one_out(before)[:, j], leave_one_out(changed)[:, j]
        torch.testing.assert_close(same, b)
        advantage = LeaveOneOut()(changed)[:, j]
        torch.testing.assert_close(advantage, changed.reward()[:, j] - b)


@settings(max_examples=25)
@given(seed=seeds, n=st.integers(3, 6))
def test_leave_one_out_is_the_mean_reward_without_j(seed, n):
    """As its formula is read: drop j, compute the mean reward of the rest."""
    t = terms(seed, n)
    for j in range(n):
        rest = [i for i in range(n) if i != j]
        without = Terms(t.unary[:, rest], t.pairwise[:, rest][:, :, rest])
        torch.testing.assert_close(leave_one_out(t)[:, j], without.reward().mean(1))


@settings(max_examples=25)
@given(seed=seeds)
def test_leave_one_out_of_two_and_of_one(seed):
    two = terms(seed, 2)
    torch.testing.assert_close(leave_one_out(two), two.unary.flip(1))
    one = Terms.of_unary(normal(seed, 3, 1))
    torch.testing.assert_close(LeaveOneOut()(one), one.unary)


@settings(max_examples=25)
@given(seed=seeds, n=counts)
def test_normalised_advantages_have_mean_0_and_deviation_1(seed, n):
    advantages = GroupNormalised()(terms(seed, n))
    torch.testing.assert_close(advantages.mean(1), torch.zeros(3).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(advantages.std(1), torch.ones(3).double())
    equal = Terms.of_unary(torch.full((2, n), 0.1))
    assert GroupNormalised()(equal).tolist() == [[0.0] * n] * 2


@settings(max_examples=25)
@given(seed=seeds, n=counts)
def test_rounding_is_not_normalised(seed, n):
    """Rollouts that all equal the reference: alignment and diversity cancel, but for rounding."""
    unary = 2 + 2e-7 * normal(seed, 3, n)
    pairwise = (-2 + 2e-7 * normal(seed + 1, 3, n, n)) * (1 - torch.eye(n))
    assert GroupNormalised()(Terms(unary, pairwise)).tolist() == [[0.0] * n] * 3


@settings(max_examples=25)
@given(seed=seeds, n=counts, m=st.integers(1, 3))
def test_several_references_are_averaged(seed, n, m):
    f = features(seed, n, m=m)
    for part in PARTS:
        if isinstance(part, KernelScore) and part.kernel in WITH_BANDWIDTH:
            part = part.model_copy(update={"bandwidth": 1.0})
        reward = part.build(tiny_resources())
        each = [reward(None, Features(f.samples, f.references[:, [i]])).unary for i in range(m)]
        torch.testing.assert_close(reward(None, f).unary, torch.stack(each).mean(0))


@given(seed=seeds)
def test_a_mean_that_is_subtracted_from_all_features_changes_no_advantage(seed):
    """With dot products and leave-one-out baselines, if there are pairs without j."""
    samples, references = normal(seed, 3, 4, 2), normal(seed + 1, 3, 1, 2)
    raw, centred = (
        LeaveOneOut()(FeatureMatching()(None, Features(samples - m, references - m)))
        for m in (0, normal(seed + 2, 2))
    )
    torch.testing.assert_close(raw, centred, atol=1e-9, rtol=1e-9)
