"""Figures and recommendations, held against a tabular policy whose values are known."""

import math

import pytest
import torch

from ebft.diagnosis.advice import Advice, advise, run_for
from ebft.diagnosis.evidence import Evidence, RolloutEvidence
from ebft.diagnosis.figures import CANDIDATES, FARTHEST, RolloutNoise, figures_of
from ebft.scoring.gradient_signal import GradientSignal
from ebft.scoring.pairs import PairStatistic
from tests.property.strategies import normal
from tests.unit.diagnosis.tables import TabularWorld

WORLD = TabularWorld(2, away=2.0)
N, STEP = 4, 8


def flop(n):
    """A document costs as much as eight rollouts."""
    return 8.0 + n


def figures(world=WORLD, n=N, documents=500, *, seed=0, cost=flop, follows_law=True):
    return figures_of(
        world.evidence(n, documents, seed),
        n=n, documents_per_step=STEP, flop=cost, follows_law=follows_law,
    )  # fmt: skip


@pytest.fixture(scope="module")
def found():
    return figures()


def near(statistic, exact):
    interval = statistic.interval(level=0.999)
    assert abs(interval.mean - exact) <= interval.half_width
    assert interval.half_width < 0.9 * exact


def test_the_parts_of_the_policy_gradient_are_those_of_the_world(found):
    signal, documents, rollouts = WORLD.exact(N)
    near(found.policy.signal, signal)
    near(found.policy.documents, documents)
    near(found.policy.rollouts, rollouts)


def test_the_noise_of_other_n_is_that_of_the_world(found):
    assert list(found.rollouts.noise) == [n for n in CANDIDATES if N / 2 <= n <= FARTHEST * N]
    for n in (6, 8, 12):
        _, documents, rollouts = WORLD.exact(n)
        assert found.rollouts.noise[n].value == pytest.approx(documents + rollouts, rel=0.15)


def test_the_recommendation_followed_gives_the_predicted_ratio(found):
    """As many documents as the recommendation says have as much signal as noise, within 1.5."""
    advice = advise(found, n=N, documents_per_step=1, gamma=0.0)
    n = int(advice.keys.get("sampler.n", N))
    documents = int(advice.keys["training.documents_per_step"])
    signal, of_documents, of_rollouts = WORLD.exact(n)
    true = documents * signal / (of_documents + of_rollouts)
    assert 1 / 1.5 < true < 1.5


def test_the_recommended_n_costs_less_by_the_predicted_factor():
    """Documents are so expensive that more rollouts pay."""
    dear = figures(cost=lambda n: 100.0 + n)
    best = dear.rollouts.best()
    assert best > N
    noise = {n: sum(WORLD.exact(n)[1:]) for n in (N, best)}
    true = noise[best] * (100.0 + best) / (noise[N] * (100.0 + N))
    assert true < 1
    assert 1 / 1.5 < dear.rollouts.relative(best).value / true < 1.5


def test_rollouts_that_are_dear_are_few():
    """The noise is mostly the documents', so rollouts are wasted."""
    flat = TabularWorld(3, away=0.3)
    found = figures(flat, n=16, cost=lambda n: float(n))
    assert found.rollouts.best() < 16
    assert found.rollouts.best() in found.rollouts.noise


def test_the_gamma_of_equal_signals_is_the_worlds(found):
    """|G| of the policy gradient over |G| of the cross-entropy, both by enumeration."""
    mean = torch.zeros(WORLD.V).double()
    for c in range(WORLD.C):
        mean += (WORLD.p[c] - WORLD.truth[c]) / WORLD.C
    exact = math.sqrt(WORLD.exact(N)[0]) / float(mean.norm())
    assert found.gamma.low < exact < found.gamma.high
    assert found.gamma.value == pytest.approx(exact, rel=0.15)
    advice = advise(found, n=N, documents_per_step=10**6, gamma=10 * exact)
    assert float(advice.keys["objective.gamma"]) == pytest.approx(found.gamma.value, rel=0.05)
    assert "training.documents_per_step" not in advice.keys


def test_the_gamma_of_equal_steps_has_the_noise_in_it(found):
    squared = [
        parts.signal.value + parts.noise.value / STEP
        for parts in (found.policy, found.cross_entropy)
    ]
    assert found.gamma_of_steps == pytest.approx((squared[0] / squared[1]) ** 0.5)


def test_without_signal_nothing_is_told():
    still = TabularWorld(2, away=0.0)
    found = figures(still, documents=60)
    assert still.exact(N)[0] < 1e-20
    assert not found.policy.noise_scale().told
    advice = advise(found, n=N, documents_per_step=1, gamma=0.0)
    assert "documents: at least " in advice.reasons["training.documents_per_step"]
    assert "objective.gamma" not in advice.keys


def test_the_limits_of_the_noise_scale_cover():
    """Forty measurements of 60 documents: all but a few have the true scale within."""
    world = TabularWorld(2, away=2.0)
    signal, documents, rollouts = world.exact(N)
    scales = [figures(world, documents=60, seed=seed).policy.noise_scale() for seed in range(40)]
    true = (documents + rollouts) / signal
    assert sum(one.low <= true <= one.high for one in scales) >= 34


def test_without_a_law_only_what_was_measured_is_compared():
    assert list(figures(documents=50, follows_law=False).rollouts.noise) == [N, 2 * N]


def test_if_2n_rollouts_have_another_gradient_the_sets_alone_count():
    evidence = WORLD.evidence(N, 50)
    rollouts = evidence.rollouts
    alone = RolloutEvidence(
        rollouts.sets,
        None,
        rollouts.with_cross_entropy,
        None,
        {"x": torch.ones(50, 3)},
        None,
        rollouts.length,
        rollouts.shared,
    )
    found = figures_of(
        Evidence(None, evidence.cross_entropy, alone),
        n=N, documents_per_step=STEP, flop=flop, follows_law=True,
    )  # fmt: skip
    assert list(found.rollouts.noise) == [N]
    assert found.rollouts.best() == N
    pairs = rollouts.sets.mean((1, 3))
    expected = (pairs.sum() - pairs.diagonal().sum()) / (50 * 49)
    assert found.policy.signal.value == pytest.approx(float(expected))
    assert found.ranks["x"].mean == pytest.approx(1.0)
    assert found.spread is None


def test_sft_has_the_cross_entropy_alone():
    evidence = Evidence(None, WORLD.evidence(N, 200).cross_entropy, None)
    found = figures_of(evidence, n=0, documents_per_step=2, flop=flop, follows_law=False)
    assert (found.policy, found.rollouts, found.gamma) == (None, None, None)
    advice = advise(found, n=0, documents_per_step=1, gamma=1.0)
    assert list(advice.keys) == ["training.documents_per_step"]


def test_a_recipe_that_is_as_good_as_any_gets_no_advice(found):
    dear = figures(documents=400, cost=lambda n: float(n**4))
    assert dear.rollouts.best() < N
    few = figures(documents=400, n=2, cost=lambda n: float(n**4), follows_law=False)
    advice = advise(few, n=2, documents_per_step=10**6, gamma=found.gamma.value)
    assert advice == Advice({}, {})


def test_only_what_is_told_to_be_better_is_recommended():
    """Noise of 2 with 8 rollouts, or 1.95 ± more than the difference with 4."""
    four = PairStatistic.of_documents(2 + 0.1 * normal(0, 40))
    eight = PairStatistic.of_documents(0.97 + 0.1 * normal(1, 40))
    assert RolloutNoise(4, {4: four, 8: eight}, lambda n: float(n)).best() == 4
    clear = PairStatistic.of_documents(0.5 + 0.1 * normal(1, 40))
    assert RolloutNoise(4, {4: four, 8: clear}, lambda n: float(n)).best() == 8
    assert RolloutNoise(4, {4: four, 8: clear}, None).cost(8) == 8
    assert RolloutNoise(4, {4: four, 8: clear}, lambda n: float(n**3)).best() == 4


def parts(signal, noise, spread=0.01):
    K = 30
    own = noise / 2 + 0.01 * normal(5, K)
    pairs = signal + spread * normal(6, K, K)
    half = PairStatistic.of_documents(own)
    return GradientSignal(PairStatistic.of_pairs(pairs), half, half)


def test_the_run_that_shows_an_effect():
    seen = []

    def progress(signal, noise):
        seen.append((signal, noise))
        return 0.1 * signal

    run = run_for(
        0.5, parts(2.0, 12.0), n=4, documents_per_step=6,
        progress=progress, flop=1e9, rate=1e9,
    )  # fmt: skip
    ((signal, noise),) = seen
    assert signal == pytest.approx(2.0, rel=0.01)
    assert noise == pytest.approx(12.0 / 6, rel=0.01)
    assert run.steps == pytest.approx(0.5 / 0.2, rel=0.01)
    assert run.flop == pytest.approx(run.steps * 6e9)
    assert run.hours == pytest.approx(run.steps * 6 / 3600)
    assert not run.at_least


def test_of_a_signal_that_is_not_told_its_limit_is_taken():
    noisy = parts(0.001, 12.0, spread=0.5)
    interval = noisy.signal.interval()
    assert not interval.excludes_zero
    run = run_for(
        0.5, noisy, n=4, documents_per_step=6,
        progress=lambda signal, noise: signal, flop=None, rate=1.0,
    )  # fmt: skip
    assert run.at_least
    assert run.steps == pytest.approx(max(0.5 / (interval.mean + interval.half_width), 1))
    assert run.flop == math.inf
