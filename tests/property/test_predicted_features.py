"""Baselines of single tokens: the gradient of the same loss, with less noise."""

import pytest
import torch
from hypothesis import given, settings

from ebft.baselines.leave_one_out import LeaveOneOut
from ebft.baselines.predicted_features import (
    PredictedFeatures,
    PredictedFeaturesBaseline,
    with_place,
)
from ebft.baselines.ridge import ROWS, RunningRidge
from ebft.distributed.processes import ONE_PROCESS, OneProcess
from ebft.features.hidden_states import HiddenStates
from ebft.plans.completion import Completion
from ebft.plans.strided import Strided
from ebft.rewards.feature_matching import FeatureMatching
from ebft.rollout.records import Features, Prefixes
from ebft.samplers.hf_tree import HfTree
from ebft.testing import check_baseline
from ebft.testing.token_baselines import random_prefixes
from ebft.training.loop import sample_and_score
from ebft.training.objective import policy_gradient_loss
from ebft.training.parts import RolloutParts
from tests.property.strategies import normal, seeds
from tests.tiny import tiny_documents, tiny_policy, tiny_resources

F = 3


class World:
    """Outcome v has the tokens (v // 2, v % 2). Its features depend on both; the state before the
    second token depends on the first."""

    def __init__(self, seed):
        self.theta = normal(seed, 6).requires_grad_()
        a, b = self.theta[:2].log_softmax(0), self.theta[2:].view(2, 2).log_softmax(1)
        self.tokens = torch.stack([a.repeat_interleave(2), b.flatten()], 1)
        self.phi = normal(seed + 1, 4, 2)
        second = normal(seed + 2, 2, F).repeat_interleave(2, 0)
        self.states = torch.stack([normal(seed + 3, F).expand(4, F), second], 1)
        self.truth = normal(seed + 4, 4).softmax(0)

    def exact(self):
        p = self.tokens.sum(1).exp()
        loss = (self.truth * (p @ self.phi - self.phi).square().sum(1)).sum()
        return torch.autograd.grad(loss, self.theta, retain_graph=True)[0]

    def step(self, samples, reference):
        """Terms and prefixes of outcomes [P, n] and references [P]."""
        reward = FeatureMatching()
        features = Features(self.phi[samples], self.phi[reference][:, None])
        mask = torch.ones(*samples.shape, 2, dtype=torch.bool)
        direction = reward.direction(features)
        return reward(None, features), Prefixes(
            self.states[samples], mask, features.samples, direction
        )

    def fitted(self, n, *, seed):
        """A baseline after two steps with draws of their own."""
        baseline = PredictedFeaturesBaseline(PredictedFeatures(ridge=1e-6))
        for step in range(2):
            rng, p = torch.Generator().manual_seed(seed + step), self.tokens.detach().sum(1).exp()
            samples = p.multinomial(200 * n, replacement=True, generator=rng).view(200, n)
            baseline.of_tokens(*self.step(samples, samples[:, 0]))
        return baseline

    def gradients(self, n, advantages_of):
        """The estimate in each of the 4ⁿ⁺¹ draws, and its probability."""
        drawn = torch.cartesian_prod(*[torch.arange(4)] * (n + 1))
        samples, reference = drawn[:, :n], drawn[:, n]
        weight = self.tokens.detach().sum(1).exp()[samples].prod(1) * self.truth[reference]
        mask = torch.ones(1, n, 2, dtype=torch.bool)
        advantages = advantages_of(*self.step(samples, reference))

        def gradient(s, A):
            loss = policy_gradient_loss(
                self.tokens[s][None], mask, A[None], contexts=1, reduction="sum"
            )
            return torch.autograd.grad(loss, self.theta, retain_graph=True)[0]

        each = [gradient(s, A) for s, A in zip(samples, advantages, strict=True)]
        return torch.stack(each), weight


@pytest.mark.parametrize("n", [2, 3])
@settings(max_examples=5)
@given(seed=seeds)
def test_the_expected_gradient_is_that_of_the_loss(n, seed):
    world = World(seed)
    each, weight = world.gradients(n, world.fitted(n, seed=seed).of_tokens)
    torch.testing.assert_close(weight @ each, world.exact(), atol=1e-9, rtol=1e-9)


@settings(max_examples=5)
@given(seed=seeds)
def test_so_is_that_of_the_first_step(seed):
    world, first = World(seed), PredictedFeaturesBaseline(PredictedFeatures())
    each, weight = world.gradients(2, first.of_tokens)
    torch.testing.assert_close(weight @ each, world.exact(), atol=1e-9, rtol=1e-9)


def test_what_was_known_before_a_token_is_only_noise_to_it():
    total = dict.fromkeys(("predicted", "leave_one_out"), 0.0)
    for seed in range(8):
        world = World(seed)
        ways = {
            "predicted": world.fitted(3, seed=seed).of_tokens,
            "leave_one_out": lambda terms, _: LeaveOneOut()(terms),
        }
        for name, way in ways.items():
            each, weight = world.gradients(3, way)
            total[name] += float(weight @ each.square().sum(1))
    assert total["predicted"] < 0.8 * total["leave_one_out"]


@given(seed=seeds)
def test_the_reward_is_linear_in_the_rollout_s_own_features(seed):
    samples = normal(seed, 3, 4, 2)
    several = Features(samples, normal(seed + 1, 3, 2, 2))
    paired = Features(samples, normal(seed + 1, 3, 4, 2), paired=True)
    alone = Features(samples[:, :1], normal(seed + 1, 3, 1, 2))
    for features in (several, paired, alone):
        for reward in (FeatureMatching(), FeatureMatching(alignment=0.5, diversity=0.3)):
            linear = (features.samples * reward.direction(features)).sum(-1)
            torch.testing.assert_close(linear, reward(None, features).reward())
    assert FeatureMatching().is_linear()
    assert not FeatureMatching(alignment_similarity="cosine").is_linear()
    assert not FeatureMatching(diversity_similarity="cosine").is_linear()


@given(seed=seeds)
def test_a_mean_that_is_subtracted_from_all_features_changes_no_advantage(seed):
    """With dot products and leave-one-out baselines, if there are pairs without j."""
    samples, references = normal(seed, 3, 4, 2), normal(seed + 1, 3, 1, 2)
    raw, centred = (
        LeaveOneOut()(FeatureMatching()(None, Features(samples - m, references - m)))
        for m in (0, normal(seed + 2, 2))
    )
    torch.testing.assert_close(raw, centred, atol=1e-9, rtol=1e-9)


@given(seed=seeds)
def test_it_is_the_ridge_regression_on_all_rows(seed):
    N = ROWS + 60  # more than are added at a time
    x, y = normal(seed, N, 4) + 1, normal(seed + 1, N, 2)
    ridge = RunningRidge(ridge=0.3, decay=1.0)
    for rows in (slice(0, 7), slice(7, 40), slice(40, N)):
        ridge.absorb(x[rows], y[rows])
    centred, target = x - x.mean(0), y - y.mean(0)
    penalty = 0.3 * centred.square().mean() * torch.eye(4).double()
    B = torch.linalg.solve(centred.mT @ centred / N + penalty, centred.mT @ target / N)
    expected = centred @ B + y.mean(0)
    torch.testing.assert_close(ridge.predict(x), expected, atol=1e-8, rtol=1e-8)


def test_earlier_rows_weigh_less():
    ridge = RunningRidge(ridge=1.0, decay=0.5)
    ones = torch.ones(4, 2, dtype=torch.float64)
    ridge.absorb(ones, 0 * ones)
    ridge.absorb(ones, 3 * ones)
    torch.testing.assert_close(ridge.predict(ones), 2 * ones)


class OneOfTwo(OneProcess):
    """Sums of this process and of another one, whose values were recorded."""

    def __init__(self, others=None):
        self.others, self.seen = others, []

    def sum(self, values):
        self.seen.append(values)
        return values if self.others is None else values + self.others[len(self.seen) - 1]


def test_processes_share_their_rows():
    x, y = normal(0, 9, 4), normal(1, 9, 2)
    whole, other = RunningRidge(0.3, 1.0), OneOfTwo()
    whole.absorb(x, y)
    RunningRidge(0.3, 1.0, other).absorb(x[5:], y[5:])
    one = RunningRidge(0.3, 1.0, OneOfTwo(other.seen))
    one.absorb(x[:5], y[:5])
    torch.testing.assert_close(one.predict(x), whole.predict(x))


def test_a_token_s_place_is_part_of_its_state():
    states = normal(0, 2, 3, 4, 5)
    placed = with_place(states)
    assert torch.equal(placed[..., :5], states)
    expected = torch.tensor([[1, 1], [3 / 4, 1 / 2], [2 / 4, 1 / 3], [1 / 4, 1 / 4]]).double()
    torch.testing.assert_close(placed[1, 2, :, 5:], expected)


def test_tokens_after_the_end_have_no_advantage():
    baseline = PredictedFeaturesBaseline(PredictedFeatures())
    for step in range(2):
        terms, prefixes = random_prefixes(3, seed=step)
        advantages = baseline.of_tokens(terms, prefixes)
        assert not prefixes.mask.all()
        assert (advantages[~prefixes.mask] == 0).all()
        assert (advantages[prefixes.mask] != 0).all()


def test_it_keeps_to_the_contract():
    check_baseline(PredictedFeatures())


class SeesItself(PredictedFeatures):
    """Subtracts the mean reward, which has rollout j in it."""

    def build(self, resources):
        built = super().build(resources)

        class Baseline:
            def of_tokens(self, terms, prefixes):
                mean = terms.reward().mean(1, keepdim=True)[..., None]
                return built.of_tokens(terms, prefixes) - mean

        return Baseline()


def test_a_baseline_that_sees_its_own_rollout_is_found_out():
    with pytest.raises(AssertionError, match="claims to be unbiased"):
        check_baseline(SeesItself())


PLANS = {
    "strided": Strided(start=3, stride=4, rollout_length=5),
    "completion": Completion(rollout_length=6),
}


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("plan", PLANS)
def test_a_state_is_what_is_known_before_its_token(plan, pooling):
    """The features of the tokens before it, and nothing of later ones."""
    resources = tiny_resources(tiny_policy())
    contexts = PLANS[plan](tiny_documents([19, 12], prompt_length=4)).one_by_one()
    rollouts = HfTree(n=3).build(resources)(contexts, step=0)
    part = HiddenStates(pooling=pooling)
    features, states = part.build(resources).with_states(rollouts)
    alone = part.build(resources)(rollouts)
    torch.testing.assert_close(features.samples, alone.samples)
    torch.testing.assert_close(features.references, alone.references)
    G, width = contexts.rollout_length, features.samples.shape[-1]
    assert states.shape[2:] == (G, width * (2 if pooling == "mean" else 1))
    # Before the first token, all rollouts of a context know the same.
    assert (states[:, :, 0] == states[:, :1, 0]).all()
    for t in range(1, G):
        last, so_far = (
            HiddenStates(pooling=p).build(resources)(rollouts.first(t)).samples
            for p in ("last", "mean")
        )
        expected = torch.cat([last, so_far], -1) if pooling == "mean" else last
        inside = rollouts.mask[..., t]
        torch.testing.assert_close(states[:, :, t][inside], expected[inside], atol=1e-6, rtol=1e-5)


def test_a_map_of_single_tokens_has_no_states():
    assert HiddenStates(pooling="mean").has_states()
    assert not HiddenStates(pooling="each").has_states()


def test_through_the_loop_each_token_has_an_advantage():
    resources = tiny_resources(tiny_policy())
    contexts = PLANS["completion"](tiny_documents([19, 12, 15], prompt_length=4))
    parts = RolloutParts(
        HfTree(n=3).build(resources), HiddenStates().build(resources), [], FeatureMatching(),
        PredictedFeatures().build(resources),
    )  # fmt: skip
    first, second = (sample_and_score(parts, contexts, ONE_PROCESS, step=s) for s in range(2))
    mask = first.rollouts.mask
    loo = LeaveOneOut()(first.terms)[..., None].expand(mask.shape)
    torch.testing.assert_close(first.advantages, loo.where(mask, 0))
    assert second.advantages.shape == second.rollouts.mask.shape
    assert second.advantages.std(-1).min() > 0
