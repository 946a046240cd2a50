"""Means over pairs of documents: what they estimate, and how often their intervals cover it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebft.scoring.pairs import FEWEST_FOR_PAIRS, PairStatistic, ratio
from tests.property.strategies import generator, normal, seeds

TIMES = 400
ERROR = 3 * math.sqrt(0.95 * 0.05 / TIMES)


def statistic(seed, K, clusters=None):
    return PairStatistic(normal(seed, K), (lambda h: h + h.mT)(normal(seed + 1, K, K)), clusters)


def by_definition(one, kept):
    """Loops over documents and over pairs of different clusters."""
    clusters = range(len(one.own)) if one.clusters is None else one.clusters.tolist()
    own = [float(one.own[k]) for k in kept]
    pairs = [float(one.pairs[k, m]) for k in kept for m in kept if clusters[k] != clusters[m]]
    return sum(own) / len(own) + sum(pairs) / len(pairs)


@settings(max_examples=30)
@given(seed=seeds, sizes=st.lists(st.integers(1, 3), min_size=2, max_size=5))
def test_the_value_is_that_of_the_definition(seed, sizes):
    clusters = torch.repeat_interleave(torch.tensor(sizes))
    one = statistic(seed, len(clusters), clusters)
    assert one.value == pytest.approx(by_definition(one, range(len(clusters))))


@settings(max_examples=30)
@given(seed=seeds, sizes=st.lists(st.integers(1, 3), min_size=3, max_size=5))
def test_the_jackknife_leaves_out_clusters(seed, sizes):
    clusters = torch.repeat_interleave(torch.tensor(sizes))
    one, C = statistic(seed, len(clusters), clusters), len(sizes)
    without = torch.tensor(
        [
            by_definition(one, [k for k in range(len(clusters)) if clusters[k] != c])
            for c in range(C)
        ]
    )
    expected = (C - 1) * float(without.var(correction=0))
    assert one._grouped().jackknife() == pytest.approx(expected, rel=1e-5)


@settings(max_examples=20)
@given(seed=seeds)
def test_statistics_add_up(seed):
    one, other = statistic(seed, 6), statistic(seed + 9, 6)
    together = one - 0.5 * other
    assert together.value == pytest.approx(one.value - 0.5 * other.value)
    assert (0.5 * one).variance() == pytest.approx(0.25 * one.variance())


def test_a_mean_over_documents_has_the_usual_interval():
    own = normal(0, 9)
    found = PairStatistic.of_documents(own).interval()
    assert found.mean == pytest.approx(float(own.mean()))
    assert found.half_width == pytest.approx(2.306004 * float(own.std()) / 3)


@settings(max_examples=10)
@given(seed=seeds, shift=st.floats(-3, 3))
def test_additive_pairs_have_no_variance_of_pairs(seed, shift):
    """h(x, x') = a(x) + a(x'): the residuals of the fit are 0, whatever the cluster sizes."""
    clusters = torch.repeat_interleave(torch.tensor([1, 3, 2, 1, 2]))
    a = normal(seed, 5)[clusters] + shift
    grouped = PairStatistic(torch.zeros(9).double(), a[:, None] + a, clusters)._grouped()
    assert grouped.variance_of_pairs() < 1e-20
    assert grouped.jackknife() > 0


def gradients(K, rank, signal, seed, *, heavy=False, sizes=None):
    """K gradients of noise 1 in `rank` dimensions, and |G|² = signal."""
    rng = generator(seed)
    noise = torch.randn(TIMES, K, rank, generator=rng, dtype=torch.float64) / math.sqrt(rank)
    if sizes is not None:
        of_cluster = torch.randn(TIMES, len(sizes), rank, generator=rng, dtype=torch.float64)
        numbers = torch.repeat_interleave(torch.tensor(sizes))
        noise = (noise + of_cluster[:, numbers] / math.sqrt(rank)) / math.sqrt(2)
    if heavy:
        noise = noise * torch.randn(TIMES, K, 1, generator=rng, dtype=torch.float64).mul(0.7).exp()
    noise[..., 0] += math.sqrt(signal)
    return noise


@pytest.mark.parametrize("heavy", [False, True], ids=["normal", "heavy tails"])
@pytest.mark.parametrize("signal", [0.0, 0.01, 0.1, 1.0])
@pytest.mark.parametrize(("K", "rank"), [(12, 100), (24, 30), (48, 100)])
def test_intervals_of_the_signal_cover(K, rank, signal, heavy):
    hits = 0
    for g in gradients(K, rank, signal, 5, heavy=heavy):
        interval = PairStatistic.of_pairs(g @ g.mT).interval()
        hits += abs(interval.mean - signal) <= interval.half_width
    assert hits / TIMES > 0.925 - ERROR


def test_intervals_of_no_signal_are_hardly_too_wide():
    """The jackknife's own would be √2 times as wide, and cover 99 %."""
    covered = told = 0
    means, variances = [], []
    for g in gradients(32, 200, 0.0, 1):
        statistic = PairStatistic.of_pairs(g @ g.mT)
        interval = statistic.interval()
        means.append(statistic.value)
        variances.append(statistic._grouped().variance_of_pairs())
        covered += abs(interval.mean) <= interval.half_width
        told += interval.mean > interval.half_width
    assert abs(covered / TIMES - 0.95) < ERROR
    assert told / TIMES < 0.025 + ERROR
    # All of the variance is that of pairs.
    exact = float(torch.tensor(means).var())
    assert 0.8 < sum(variances) / TIMES / exact < 1.25


@pytest.mark.parametrize("signal", [0.0, 0.3])
def test_documents_of_a_cluster_are_not_independent(signal):
    sizes = [1, 1, 2, 2, 3, 1, 1, 4, 2, 1, 2, 3, 1]
    clusters = torch.repeat_interleave(torch.tensor(sizes))
    hits, means, naive = 0, [], []
    for g in gradients(len(clusters), 100, signal, 3, sizes=sizes):
        interval = PairStatistic.of_pairs(g @ g.mT, clusters).interval()
        hits += abs(interval.mean - signal) <= interval.half_width
        means.append(interval.mean)
        naive.append(PairStatistic.of_pairs(g @ g.mT).value)
    assert hits / TIMES > 0.925 - ERROR
    error = torch.tensor(means).std() / TIMES**0.5
    assert abs(torch.tensor(means).mean() - signal) < 4 * error
    assert torch.tensor(naive).mean() - signal > 8 * error


@pytest.mark.parametrize("signal", [0.003, 0.03, 0.3])
def test_intervals_of_the_noise_scale_cover(signal):
    """Also those without an upper limit, at a signal that is not told from zero."""
    hits, unbounded, one = 0, 0, 1 / signal
    for g in gradients(24, 60, signal, 7):
        squared, signals = PairStatistic.of_documents(g.square().sum(1)), g @ g.mT
        found = ratio(squared - PairStatistic.of_pairs(signals), PairStatistic.of_pairs(signals))
        hits += found.low <= one <= found.high
        unbounded += not found.told
    assert hits / TIMES > 0.925 - ERROR
    assert (unbounded > TIMES / 2) == (signal < 0.01)
    assert (unbounded < TIMES / 50) == (signal > 0.1)


@settings(max_examples=30)
@given(seed=seeds)
def test_the_interval_of_a_ratio_is_where_the_difference_is_not_told_from_zero(seed):
    own = normal(seed, 2, 10)
    above, below = (PairStatistic.of_documents(x) for x in (own[0] + 3, own[1] + 1))
    found = ratio(above, below)

    def told(value):
        return (above - value * below).interval().excludes_zero

    if found.told:
        for end in (found.low, found.high):
            if end > 0:
                assert not told(end + 1e-6 * (found.value - end))
                assert told(end - 1e-6 * (found.value - end))
        assert not told(found.value)
    elif found.low > 0:
        assert not told(found.low * (1 + 1e-6))
        assert told(found.low * (1 - 1e-6))
        assert not told(1e9)


def test_of_too_few_clusters_there_is_no_interval():
    K = int(FEWEST_FOR_PAIRS) - 1
    one = statistic(0, K)
    assert one.variance() == math.inf
    assert one.interval().too_few
    assert ratio(one, one).high == math.inf
    assert not statistic(0, K + 1).interval().too_few
    unequal = torch.repeat_interleave(torch.tensor([9, 1, 1, 1, 1]))
    assert statistic(0, 13, unequal).interval().too_few


def test_a_root_is_the_ratio_of_norms():
    own = normal(0, 12)
    found = ratio(PairStatistic.of_documents(own + 8), PairStatistic.of_documents(own + 2))
    assert found.root().value == pytest.approx(found.value**0.5)
    assert found.root().low == pytest.approx(found.low**0.5)
    assert not ratio(PairStatistic.of_documents(own + 8), PairStatistic.of_documents(own)).told
