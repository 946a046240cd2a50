"""Intervals over seeds and over shared documents hold at the rate that they state."""

import numpy as np
import pytest
import torch

from ebft.scoring.interval import difference, over_seeds, pooled_spread

STUDIES = 2000
RATE = pytest.approx(0.95, abs=0.02)  # four standard errors of 2,000 draws


def draw(rng, arms, seeds):
    """Runs of arms with effects, seeds with effects, and noise."""
    effect, block = rng.normal(size=(arms, 1)), 3 * rng.normal(size=(1, seeds))
    return effect, effect + block + 0.5 * rng.normal(size=(arms, seeds))


@pytest.mark.parametrize(("arms", "seeds"), [(2, 3), (5, 2), (4, 4)])
def test_the_pooled_interval_covers_a_difference(arms, seeds):
    rng, hits = np.random.default_rng(0), 0
    for _ in range(STUDIES):
        effect, runs = draw(rng, arms, seeds)
        error = (runs[1] - runs[0]).mean() - float(effect[1, 0] - effect[0, 0])
        hits += abs(error) <= pooled_spread(runs).half_width(seeds)
    assert hits / STUDIES == RATE


def test_of_an_arm_that_lacks_seeds_the_pooled_interval_is_wider():
    rng, hits = np.random.default_rng(2), 0
    for _ in range(STUDIES):
        effect, runs = draw(rng, 4, 3)
        error = (runs[3, 0] - runs[0, 0]) - float(effect[3, 0] - effect[0, 0])
        hits += abs(error) <= pooled_spread(runs[:3]).half_width(1)
    assert hits / STUDIES == RATE


@pytest.mark.parametrize("seeds", [2, 3, 6])
def test_the_interval_over_seeds_covers_the_mean(seeds):
    rng, hits = np.random.default_rng(1), 0
    for _ in range(STUDIES):
        interval = over_seeds((1.5 + rng.normal(size=seeds)).tolist())
        hits += abs(interval.mean - 1.5) <= interval.half_width
    assert hits / STUDIES == RATE


def test_with_two_arms_the_pooled_interval_is_the_paired_one():
    runs = np.array([[1.0, 2.5, 3.1], [0.7, 2.9, 2.0]])
    assert pooled_spread(runs).half_width(3) == pytest.approx(
        over_seeds((runs[1] - runs[0]).tolist()).half_width
    )


def test_what_cannot_be_known_is_infinite():
    assert over_seeds([2.0]).half_width == float("inf")
    assert pooled_spread(np.ones((1, 3))).half_width(3) == float("inf")
    assert pooled_spread(np.ones((3, 1))).half_width(1) == float("inf")


def test_documents_pair_so_that_their_differences_cancel():
    generator = torch.Generator().manual_seed(0)
    documents = 10 * torch.randn(30, generator=generator, dtype=torch.float64)
    noise = 0.1 * torch.randn(4, 30, generator=generator, dtype=torch.float64)
    ours, theirs = documents + 1 + noise[:2], documents + noise[2:]
    weight = torch.ones(30, dtype=torch.float64)
    interval = difference([(v, weight) for v in ours], [(v, weight) for v in theirs], clusters=None)
    assert interval.mean == pytest.approx(float((ours - theirs).mean()))
    assert 0.01 < interval.half_width < 0.1


def test_the_interval_covers_a_change_of_values_and_weights():
    """As of means over the tokens of rollouts, which training makes shorter."""
    rng, hits = np.random.default_rng(3), 0

    def measured(document, length, effect):
        weight = length * rng.uniform(0.5, 1.5, size=document.size)
        # Longer ones are worth more, so that the weights matter.
        value = effect + document + 0.3 * weight + 0.2 * rng.normal(size=document.size)
        return torch.tensor(value), torch.tensor(weight)

    # E[w v] / E[w] with w = L·u, u uniform: effect + 0.3 L E[u²], and E[u²] is 13/12.
    exact = (0.5 + 0.3 * 2 * 13 / 12) - (0.3 * 4 * 13 / 12)
    for _ in range(STUDIES):
        document = 5 * rng.normal(size=60)
        before, after = measured(document, 4.0, 0.0), measured(document, 2.0, 0.5)
        interval = difference([after], [before], clusters=None)
        hits += abs(interval.mean - exact) <= interval.half_width
    assert hits / STUDIES == RATE
