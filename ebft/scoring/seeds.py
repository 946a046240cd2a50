"""Intervals over runs that differ in their seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from ebft.scoring.interval import Interval


def over_seeds(values: Sequence[float], *, level: float = 0.95) -> Interval:
    """The mean of S runs with a Student-t interval; of one run it is infinite.

    It covers what another seed would change (the documents' order, the rollouts), for these
    held-out documents. With two or three seeds it is wide: little is known of the spread then.
    """
    S = len(values)
    if S < 2:
        return Interval(float(values[0]), float("inf"), S)
    half = stats.t.ppf((1 + level) / 2, S - 1) * np.std(values, ddof=1) / S**0.5
    return Interval(float(np.mean(values)), float(half), S)


@dataclass(frozen=True, slots=True)
class Spread:
    """The variance over seeds that all arms are taken to share, and its degrees of freedom."""

    variance: float
    freedom: int

    def half_width(self, seeds: int, *, level: float = 0.95) -> float:
        """Half the interval of a difference between two arms, each a mean over so many seeds."""
        if self.freedom < 1:
            return float("inf")
        quantile = stats.t.ppf((1 + level) / 2, self.freedom)
        return float(quantile * (2 * self.variance / seeds) ** 0.5)


def pooled_spread(values: Float[np.ndarray, "A S"]) -> Spread:
    """The spread of A × S runs about what their arms and their seeds explain.

    A randomised block design: every arm is run with every seed, and what is left of a run's value
    without its arm's and its seed's mean is the spread, taken to be the same in all arms. So it has
    (A−1)(S−1) degrees of freedom instead of S−1: none with fewer than two arms or seeds.
    """
    A, S = values.shape
    freedom = (A - 1) * (S - 1)
    if freedom < 1:
        return Spread(float("inf"), 0)
    rest = values - values.mean(1, keepdims=True) - values.mean(0, keepdims=True) + values.mean()
    return Spread(float(np.square(rest).sum()) / freedom, freedom)
