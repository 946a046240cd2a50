"""Intervals over clusters of every size: they cover as often as they say, or there is none."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from scipy import stats

from ebft.measurements import Measurement
from ebft.scoring.interval import (
    FEWEST,
    Interval,
    degrees_of_freedom,
    difference,
    mean_interval,
    paired_change,
)
from tests.property.strategies import generator, normal, seeds

TIMES = 400
ERROR = 3 * math.sqrt(0.95 * 0.05 / TIMES)
SIZES = {
    "4 equal": [5] * 4,
    "4": [8, 4, 2, 1],
    "4 ragged": [30, 12, 2, 1],
    "5, two large": [20, 20, 1, 1, 1],
    "6": [26, 13, 6, 3, 2, 1],
    "6, one large": [12, 3, 3, 3, 3, 3],
    "8": [40, 22, 12, 7, 4, 2, 1, 1],
    "12": [40, 29, 20, 15, 11, 8, 6, 4, 3, 2, 1, 1],
    "20, one large": [20] + [1] * 19,
    "20": [1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 10, 11, 14, 16, 20, 23, 28, 33, 40],
    "40": [1 + i**3 // 1600 for i in range(40)],
}


def numbers_of(sizes):
    return torch.repeat_interleave(torch.tensor(sizes))


def draws(sizes, alike, *, weighted=False, seed=0):
    """Values [TIMES, B] of mean 0.3, of whose variance clusters share `alike`, and weights [B]."""
    rng, numbers = generator(seed), numbers_of(sizes)
    B = len(numbers)
    of_cluster = torch.randn(TIMES, len(sizes), generator=rng, dtype=torch.float64)[:, numbers]
    own = torch.randn(TIMES, B, generator=rng, dtype=torch.float64)
    weight = torch.ones(B, dtype=torch.float64)
    if weighted:
        weight = 0.2 + 2 * torch.rand(B, generator=rng, dtype=torch.float64)
    return 0.3 + alike**0.5 * of_cluster + (1 - alike) ** 0.5 * own, weight


def effective(h):
    return 1 / float(h.square().sum())


@pytest.mark.parametrize(("alike", "weighted"), [(0.0, False), (0.3, True), (1.0, False)])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=list(SIZES))
def test_intervals_cover_whatever_the_sizes(sizes, alike, weighted):
    value, weight = draws(sizes, alike, weighted=weighted)
    clusters = numbers_of(sizes)
    found = [mean_interval(Measurement("x", "", v, weight, clusters=clusters)) for v in value]
    assert not any(interval.too_few for interval in found)
    covered = sum(abs(interval.mean - 0.3) <= interval.half_width for interval in found) / TIMES
    assert covered > 0.925 - ERROR
    if len(set(sizes)) == 1:
        assert covered < 0.95 + ERROR


def test_documents_by_themselves_do_not_cover():
    """Of 12 files whose documents are alike: who counts documents claims too much."""
    value, weight = draws(SIZES["12"], 0.5)
    found = [mean_interval(Measurement("x", "", v, weight)) for v in value]
    assert sum(abs(it.mean - 0.3) <= it.half_width for it in found) / TIMES < 0.7


@pytest.mark.parametrize("sizes", [[30, 1, 1, 1, 1, 1], [9], [30, 2], [50, 3, 3, 1]])
def test_of_too_few_there_is_no_interval(sizes):
    clusters = numbers_of(sizes)
    h = torch.bincount(clusters) / len(clusters)
    assert effective(h) < FEWEST
    value = normal(0, len(clusters))
    found = mean_interval(Measurement("x", "", value, torch.ones(len(clusters)), clusters=clusters))
    assert found.mean == pytest.approx(float(value.mean()))
    assert found.half_width == math.inf
    assert not found.excludes_zero
    assert str(found) == f"{found.mean:.4f} (too few)"
    assert str(Interval(1.0, 0.25, 3)) == "1.0000 ± 0.2500"


def test_the_estimate_with_the_fewest_clusters_decides():
    value, weight = normal(0, 6), torch.ones(6)
    before = Measurement("x", "", value, weight)
    after = replace(before, value=value + normal(1, 6))
    assert not paired_change(before, after).too_few
    one = torch.tensor([30.0, 1, 1, 1, 1, 1])
    assert paired_change(before, replace(after, weight=one)).too_few
    assert paired_change(replace(before, weight=one), after).too_few


def test_equal_clusters_are_a_sample_of_their_means():
    """By hand: means 1, 4, 7 of pairs, so a spread of 3, and 2 degrees of freedom."""
    value, clusters = torch.tensor([0.0, 2.0, 4.0, 4.0, 5.0, 9.0]), torch.arange(6) // 2
    found = mean_interval(Measurement("x", "", value, torch.ones(6), clusters=clusters))
    assert (found.mean, found.count) == (pytest.approx(4.0), 3)
    assert found.half_width == pytest.approx(4.302653 * 3 / 3**0.5)


def test_a_ragged_interval_by_hand():
    """Shares ½, ¼, ¼ of the weight and means 1, 3, 7: the mean is 3, the parts −1, 0 and 1.

    Σ u²/(1−h) = 1/½ + 1/¾ = 10/3, and Σh² − Σh⁴/(1−h)² + (Σh²/(1−h))² = ⅜ − (¼ + 2/144) + (⅔)².
    """
    weight, value = torch.tensor([2.0, 1.0, 1.0]), torch.tensor([1.0, 3.0, 7.0])
    freedom = 1 / (3 / 8 - 1 / 4 - 2 / 144 + 4 / 9)
    assert degrees_of_freedom(weight.double() / 4) == pytest.approx(freedom)
    found = mean_interval(Measurement("x", "", value, weight))
    assert found.half_width == pytest.approx(stats.t.ppf(0.975, freedom) * (10 / 3) ** 0.5)


@settings(max_examples=30)
@given(seed=seeds)
def test_degrees_of_freedom_are_those_of_the_quadratic_form(seed):
    """From the matrices: (tr K)² / tr K² with K = A (I − 1h') diag(1/h) (I − 1h')' A."""
    h = normal(seed, 5).exp()
    h = h / h.sum()
    away = torch.eye(5).double() - h
    A = torch.diag(h / (1 - h).sqrt())
    K = A @ away @ torch.diag(1 / h) @ away.mT @ A
    assert degrees_of_freedom(h) == pytest.approx(float(K.trace() ** 2 / (K @ K).trace()))


@settings(max_examples=30)
@given(seed=seeds)
def test_groups_of_several_are_their_means(seed):
    """Two runs against three on the same documents, weights and clusters."""
    ours, theirs, weight = normal(seed, 2, 12), normal(seed + 1, 3, 12), normal(seed + 2, 12).exp()
    clusters = numbers_of([1, 2, 3, 2, 4])
    found = difference(
        [(v, weight) for v in ours], [(v, weight) for v in theirs], clusters=clusters
    )
    change = ours.mean(0) - theirs.mean(0)
    alone = mean_interval(Measurement("x", "", change, weight, clusters=clusters))
    assert found.mean == pytest.approx(alone.mean)
    assert found.half_width == pytest.approx(alone.half_width)


def test_estimates_of_other_weights_have_the_freedom_of_their_mean_leverages():
    value, ours, theirs = normal(0, 5), normal(1, 5).exp(), normal(2, 5).exp()
    found = difference([(value, ours)], [(2 * value, theirs)], clusters=None)
    shares = [weight / weight.sum() for weight in (ours, theirs)]
    parts = [
        h * (v - (h * v).sum()) / (1 - h).sqrt()
        for v, h in zip((value, 2 * value), shares, strict=True)
    ]
    freedom = degrees_of_freedom((shares[0] + shares[1]) / 2)
    spread = float((parts[0] - parts[1]).norm())
    assert found.half_width == pytest.approx(stats.t.ppf(0.975, freedom) * spread)


def test_changes_of_ragged_clusters_cover():
    """Two runs against two, whose weights differ from run to run."""
    sizes, rng, hits = SIZES["12"], generator(5), 0
    clusters = numbers_of(sizes)

    def run(values):
        noise = 0.1 * torch.randn(len(values), generator=rng, dtype=torch.float64)
        return values + noise, 0.5 + torch.rand(len(values), generator=rng, dtype=torch.float64)

    for v in draws(sizes, 0.5, seed=3)[0]:
        ours, theirs = [run(6 * v) for _ in range(2)], [run(5 * v) for _ in range(2)]
        found = difference(ours, theirs, clusters=clusters)
        hits += abs(found.mean - 0.3) <= found.half_width
    assert hits / TIMES > 0.925 - ERROR


def test_numbers_of_clusters_are_names_alone():
    value, weight = normal(0, 6), torch.ones(6)
    one, other = (
        mean_interval(Measurement("x", "", value, weight, clusters=torch.tensor(numbers)))
        for numbers in ([0, 0, 1, 2, 2, 3], [-5, -5, 10**12, 7, 7, 2])
    )
    assert one == other
