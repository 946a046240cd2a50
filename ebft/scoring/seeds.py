"""Intervals over runs that differ in their seed alone, and over documents that runs share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from ebft.scoring.interval import Interval, weighted_interval


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


def pooled_half_width(values: Float[np.ndarray, "A S"], *, level: float = 0.95) -> float:
    """The half-width of the interval of a difference between two arms, from all A × S runs.

    A randomised block design: every arm is run with every seed, and what is left of a run's value
    without its arm's and its seed's mean is the spread, taken to be the same in all arms. So it has
    (A−1)(S−1) degrees of freedom instead of S−1. Infinite with fewer than two arms or seeds.
    """
    A, S = values.shape
    freedom = (A - 1) * (S - 1)
    if freedom < 1:
        return float("inf")
    rest = values - values.mean(1, keepdims=True) - values.mean(0, keepdims=True) + values.mean()
    variance = float(np.square(rest).sum()) / freedom
    return float(stats.t.ppf((1 + level) / 2, freedom) * (2 * variance / S) ** 0.5)


def over_documents(
    values: Sequence[Float[Tensor, " B"]],
    weight: Float[Tensor, " B"],
    against: Sequence[Float[Tensor, " B"]],
    *,
    level: float = 0.95,
) -> Interval:
    """The mean difference of two groups of runs, document by document, each its group's mean.

    It covers what other held-out documents would change, for these trained policies.
    """
    difference = torch.stack(list(values)).mean(0) - torch.stack(list(against)).mean(0)
    return weighted_interval(difference, weight, level=level)
