"""Intervals over runs that differ only in their seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from ebft.scoring.interval import Interval


def over_seeds(values: Sequence[float], *, level: float = 0.95) -> Interval:
    """Returns the mean of S runs with a Student-t interval, which is infinite for one run.

    It covers the variation between seeds (the documents' order, the rollouts), for fixed held-out
    documents. With two or three seeds it is wide, because the spread is poorly known.
    """
    S = len(values)
    if S < 2:
        return Interval(float(values[0]), float("inf"), S)
    half = stats.t.ppf((1 + level) / 2, S - 1) * np.std(values, ddof=1) / S**0.5
    return Interval(float(np.mean(values)), float(half), S)


@dataclass(frozen=True, slots=True)
class Spread:
    """The variance over seeds, assumed to be the same for all arms, and its degrees of freedom."""

    variance: float
    freedom: int

    def half_width(self, seeds: int, *, level: float = 0.95) -> float:
        """Returns the half-width for a difference of two arms, each a mean over `seeds` seeds."""
        if self.freedom < 1:
            return float("inf")
        quantile = stats.t.ppf((1 + level) / 2, self.freedom)
        return float(quantile * (2 * self.variance / seeds) ** 0.5)


def pooled_spread(values: Float[np.ndarray, "A S"]) -> Spread:
    """Returns the residual variance of A × S runs, without the effects of arms and seeds.

    This is a randomised block design: every arm is run with every seed. The residual of a run is
    its value without its arm's and its seed's mean, with a variance assumed to be the same in all
    arms. So there are (A−1)(S−1) degrees of freedom instead of S−1: none with fewer than two arms
    or seeds.
    """
    A, S = values.shape
    freedom = (A - 1) * (S - 1)
    if freedom < 1:
        return Spread(float("inf"), 0)
    rest = values - values.mean(1, keepdims=True) - values.mean(0, keepdims=True) + values.mean()
    return Spread(float(np.square(rest).sum()) / freedom, freedom)
