"""Property 4: what is reported is unbiased, and its intervals cover as often as they say."""

import math
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebft.parts.measurements import Measurement
from ebft.rollout.records import Features
from ebft.scoring.estimators import gradient_noise, mean_surprise, pass_at_k, slope_over_position
from ebft.scoring.interval import mean_interval, paired_change
from ebft.scoring.kernel_scores import unbiased_cfm
from tests.property.enumeration import expectation
from tests.property.strategies import distribution, generator, normal, problems, seeds


def naive_cfm(features):
    return (features.samples.mean(1) - features.references.mean(1)).square().sum(-1)


@settings(max_examples=30)
@given(problem=problems(V=4), n=st.integers(2, 4))
def test_cfm_is_unbiased_and_the_naive_estimate_overshoots(problem, n):
    logits, truth, phi = problem
    p = logits.softmax(0)
    exact = (truth * (p @ phi - phi).square().sum(1)).sum()
    torch.testing.assert_close(expectation(unbiased_cfm, p, truth, phi, n), exact)
    covariance_trace = (p * (phi - p @ phi).square().sum(1)).sum()
    naive = expectation(naive_cfm, p, truth, phi, n)
    torch.testing.assert_close(naive, exact + covariance_trace / n)


@settings(max_examples=30)
@given(seed=seeds, m=st.integers(1, 3))
def test_several_references_are_averaged(seed, m):
    samples, references = normal(seed, 2, 3, 2), normal(seed + 1, 2, m, 2)
    each = [unbiased_cfm(Features(samples, references[:, [i]])) for i in range(m)]
    together = unbiased_cfm(Features(samples, references))
    torch.testing.assert_close(together, torch.stack(each).mean(0))


def test_one_rollout_has_no_unbiased_estimate():
    with pytest.raises(ValueError, match="needs n >= 2 rollouts, not 1"):
        unbiased_cfm(Features(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2)))


@pytest.mark.parametrize("weighted", [False, True])
def test_intervals_cover_at_the_stated_rate(weighted):
    """24 documents, 2,000 times: the 95 % interval holds the truth in 95 % of them."""
    rng, times, B = generator(0), 2000, 24
    weight = torch.randint(1, 6, (times, B), generator=rng).double()
    if not weighted:
        weight = torch.ones(times, B).double()
    # Means of `weight` things each, so less noise where the weight is larger.
    value = 0.3 + torch.randn(times, B, generator=rng, dtype=torch.float64) / weight.sqrt()
    covered = [
        abs(mean_interval(Measurement("x", "", v, w)).mean - 0.3)
        <= mean_interval(Measurement("x", "", v, w)).half_width
        for v, w in zip(value, weight, strict=True)
    ]
    error = 3 * math.sqrt(0.95 * 0.05 / times)
    assert sum(covered) / times == pytest.approx(0.95, abs=error)


@settings(max_examples=30)
@given(seed=seeds)
def test_one_document_a_cluster_is_no_cluster(seed):
    value, weight = normal(seed, 7), distribution(seed + 1, 7)
    numbers = torch.tensor([5, 0, 9, 2, 11, 3, 1])
    apart = Measurement("x", "", value, weight, clusters=numbers)
    assert mean_interval(apart).half_width == pytest.approx(
        mean_interval(Measurement("x", "", value, weight)).half_width
    )
    together = Measurement("x", "", value, weight, clusters=torch.zeros(7, dtype=torch.long))
    assert mean_interval(together).half_width == math.inf


@pytest.mark.parametrize("passed", [0.0, 1.0])
@pytest.mark.parametrize("count", [6, 7, 13, 20, 30])
def test_a_share_of_none_or_all_has_an_interval(passed, count):
    """If the share were at the interval's end, so many alike would be a chance of 2.5 %."""
    value, weight = torch.full((count + 1,), passed), torch.ones(count + 1)
    value[-1] = weight[-1] = 0  # was not measured
    half_width = mean_interval(Measurement("x", "", value, weight, share=True)).half_width
    assert (1 - half_width) ** count == pytest.approx(0.025)
    no_share = mean_interval(Measurement("x", "", value, weight)).half_width
    assert no_share == pytest.approx(0, abs=1e-12)
    clusters = torch.arange(count + 1) // 2
    pairs = Measurement("x", "", value, weight, share=True, clusters=clusters)
    assert (1 - mean_interval(pairs).half_width) ** -(-count // 2) == pytest.approx(0.025)


@pytest.mark.parametrize("count", [2, 48])
def test_a_share_that_changes_in_no_document_is_not_known_exactly(count):
    value = (torch.arange(count) % 2).double()
    before = Measurement("x", "", value, torch.ones(count), share=True)
    change = paired_change(before, before)
    assert change.mean == 0
    assert change.half_width == pytest.approx(1 - 0.025 ** (1 / count))
    one = replace(before, value=1 - value.where(torch.arange(count) > 0, 1 - value))
    assert paired_change(before, one).half_width != change.half_width, "one document changed"
    spread = replace(before, share=False)
    assert paired_change(spread, spread).half_width == 0, "of figures that are no shares"


def test_equal_weights_give_the_textbook_interval():
    from scipy import stats

    value = torch.tensor([0.3, -1.2, 0.8, 2.0], dtype=torch.float64)
    low, high = stats.t.interval(0.95, 3, float(value.mean()), stats.sem(value.numpy()))
    measured = mean_interval(Measurement("x", "", value, torch.full((4,), 7.0)))
    assert measured.half_width == pytest.approx((high - low) / 2)


@settings(max_examples=30)
@given(seed=seeds)
def test_a_paired_change_is_the_interval_of_the_differences(seed):
    before, change = normal(seed, 12), normal(seed + 1, 12)
    weight = 1 + distribution(seed + 2, 12)  # no document has most of it: intervals are finite
    a, b = (Measurement("x", "", v, weight) for v in (before, before + change))
    paired = paired_change(a, b)
    alone = mean_interval(Measurement("x", "", change, weight))
    assert paired.mean == pytest.approx(alone.mean)
    assert paired.half_width == pytest.approx(alone.half_width)
    constant = paired_change(a, Measurement("x", "", before + 0.5, weight))
    assert constant.half_width == pytest.approx(0, abs=1e-12)
    assert constant.excludes_zero


def test_changes_are_of_the_same_thing():
    a = Measurement("x", "", torch.zeros(3), torch.ones(3))
    for other in (
        Measurement("y", "", torch.zeros(3), torch.ones(3)),
        Measurement("x", "", torch.zeros(4), torch.ones(4)),
    ):
        with pytest.raises(ValueError, match="not of the same documents"):
            paired_change(a, other)
    assert mean_interval(Measurement("x", "", torch.ones(1), torch.ones(1))).half_width == math.inf


def test_entropy_drift_is_the_slope_over_positions():
    surprise = torch.tensor([[[1.0, 2.0, 3.0, 4.0, 5.0, 9.0], [3.0, 4.0, 5.0, 6.0, 7.0, 9.0]]])
    mask = (torch.arange(6) < 5).expand(1, 2, 6)
    mean, tokens = mean_surprise(surprise, mask)
    assert (mean.item(), tokens.item()) == (4, 10)
    slope, weight = slope_over_position(surprise, mask)
    assert slope.item() == pytest.approx(1)
    assert weight.item() == 20, "twice 4 + 1 + 0 + 1 + 4"
    none, weight = slope_over_position(surprise[..., :1], mask[..., :1])
    assert (none.item(), weight.item()) == (0, 0), "one position has no slope"


@given(seed=seeds)
def test_the_mean_of_slopes_is_the_slope_of_the_mean_curve(seed):
    P, n, G = 5, 3, 7
    surprise = normal(seed, P, n, G)
    slopes, weights = slope_over_position(surprise, torch.ones(P, n, G, dtype=torch.bool))
    (together,), _ = slope_over_position(surprise.mean((0, 1))[None, None], torch.ones(1, 1, G) > 0)
    assert float((slopes * weights).sum() / weights.sum()) == pytest.approx(float(together))


@given(n=st.integers(1, 12), data=st.data())
def test_pass_at_k_is_the_share_of_subsets_with_one_that_passes(n, data):
    c = data.draw(st.integers(0, n))
    k = data.draw(st.integers(1, n))
    passed = [i < c for i in range(n)]
    subsets = list(combinations(passed, k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


@pytest.mark.parametrize(("p", "n", "k"), [(0.3, 5, 3), (0.05, 16, 4), (0.9, 4, 4)])
def test_pass_at_k_is_unbiased(p, n, k):
    binomial = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    expected = sum(q * pass_at_k(n, c, k) for c, q in enumerate(binomial))
    assert expected == pytest.approx(1 - (1 - p) ** k, abs=1e-12)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 1, 5), (4, 1, 0), (4, 5, 1), (4, -1, 1)])
def test_pass_at_k_of_what_cannot_be(n, c, k):
    with pytest.raises(ValueError, match="is not defined"):
        pass_at_k(n, c, k)


def test_documents_without_weight_are_none():
    value, weight = torch.tensor([1.0, math.nan, 3.0]), torch.tensor([1.0, 0.0, 1.0])
    measured = Measurement("x", "", value, weight)
    kept = Measurement("x", "", value[[0, 2]], weight[[0, 2]])
    assert mean_interval(measured) == mean_interval(kept)
    assert paired_change(measured, replace(measured, value=value + 1)).mean == 1
    with pytest.raises(ValueError, match="no document"):
        mean_interval(Measurement("x", "", value, weight * 0))


def test_gradient_noise_is_unbiased():
    """Documents' gradients G + noise: signal |G|² and noise tr Σ on average."""
    rng, K, D, times = generator(0), 4, 6, 20_000
    G = torch.full((D,), 0.5, dtype=torch.float64)
    g = G + 2 * torch.randn(times, K, D, generator=rng, dtype=torch.float64)
    squares, mean = g.square().sum(-1), g.mean(1).square().sum(-1)
    estimates = [gradient_noise(s.tolist(), float(m)) for s, m in zip(squares, mean, strict=True)]
    signal = sum(e.signal for e in estimates) / times
    noise = sum(e.noise for e in estimates) / times
    assert signal == pytest.approx(float(G.square().sum()), abs=0.15)
    assert noise == pytest.approx(4 * D, rel=0.01)
    assert gradient_noise([1.0, 1.0], 1.0).scale == 0
    assert gradient_noise([1.0, 1.0], 0.0).scale == math.inf
    with pytest.raises(ValueError, match="there are 1"):
        gradient_noise([1.0], 1.0)
