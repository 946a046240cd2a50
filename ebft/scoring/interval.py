"""Means over held-out documents with confidence intervals, and of changes between evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from ebft.interfaces import Measurement

Weighted = tuple[Float[Tensor, " B"], Float[Tensor, " B"]]
"""The value of each document, and its weight."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the half-width of its confidence interval, from `count` documents."""

    mean: float
    half_width: float
    count: int

    @property
    def excludes_zero(self) -> bool:
        return abs(self.mean) > self.half_width

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {self.half_width:.4f}"


def mean_interval(measurement: Measurement, *, level: float = 0.95) -> Interval:
    """The measurement's mean over documents, weighted by what each value is a mean of."""
    return weighted_interval(measurement.value, measurement.weight, level=level)


def paired_change(before: Measurement, after: Measurement, *, level: float = 0.95) -> Interval:
    """after − before, document by document, so that differences between documents cancel.

    Weights may change with the policy, as where values are means over its own rollouts' tokens.
    Raises `ValueError` if the two are not of the same documents.
    """
    if before.name != after.name or len(before.value) != len(after.value):
        raise ValueError(f"{before.name} and {after.name} are not of the same documents")
    return difference([(after.value, after.weight)], [(before.value, before.weight)], level=level)


def weighted_interval(
    value: Float[Tensor, " B"], weight: Float[Tensor, " B"], *, level: float
) -> Interval:
    """A ratio estimate Σ w v / Σ w with a Student-t interval over B independent documents.

    Documents, not tokens or contexts, are the sample: what belongs to one document is correlated.
    The variance is the linearised one of a ratio, B/(B−1) Σ w²(v−m)² / (Σ w)². One document has an
    infinite interval. A document without weight is none: it was not measured. Raises `ValueError`
    if none was.
    """
    return difference([(value, weight)], [], level=level)


def difference(
    ours: Sequence[Weighted], theirs: Sequence[Weighted], *, level: float = 0.95
) -> Interval:
    """The mean of some ratio estimates less that of others, all of the same documents.

    A document's part in it is Σ over ours of w(v−m)/Σw, over their number, less the same of
    theirs; the variance is B/(B−1) times the sum of those parts' squares. Raises `ValueError` for
    an estimate in which no document has weight.
    """
    measured = torch.stack([weight > 0 for _, weight in (*ours, *theirs)]).any(0)
    B = int(measured.sum())
    mean, part = 0.0, torch.zeros(B, dtype=torch.float64)
    for sign, group in ((1, ours), (-1, theirs)):
        for value, weight in group:
            m, parts = _linearised(value[measured].double(), weight[measured].double())
            mean += sign * m / len(group)
            part += sign * parts / len(group)
    if B < 2:
        return Interval(mean, float("inf"), B)
    variance = float(part.square().sum()) * B / (B - 1)
    return Interval(mean, float(stats.t.ppf((1 + level) / 2, B - 1)) * variance**0.5, B)


def _linearised(
    value: Float[Tensor, " B"], weight: Float[Tensor, " B"]
) -> tuple[float, Float[Tensor, " B"]]:
    """A ratio estimate, and what each document adds to its error."""
    if not weight.any():
        raise ValueError("no document has any weight")
    share = weight / weight.sum()
    mean = (share * value).sum()
    return float(mean), share * (value - mean)
