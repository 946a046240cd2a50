"""Means over held-out documents with confidence intervals, and of changes between evaluations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from ebft.interfaces import Measurement


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

    Raises `ValueError` if the two are not of the same documents.
    """
    if before.name != after.name or not torch.equal(before.weight, after.weight):
        raise ValueError(f"{before.name} and {after.name} are not of the same documents")
    return weighted_interval(after.value - before.value, before.weight, level=level)


def weighted_interval(
    value: Float[Tensor, " B"], weight: Float[Tensor, " B"], *, level: float
) -> Interval:
    """A ratio estimate Σ w v / Σ w with a Student-t interval over B independent documents.

    Documents, not tokens or contexts, are the sample: what belongs to one document is correlated.
    The variance is the linearised one of a ratio, B/(B−1) Σ w²(v−m)² / (Σ w)². One document has an
    infinite interval. A document without weight is none: it was not measured. Raises `ValueError`
    if none was.
    """
    value, weight = value[weight > 0], weight[weight > 0]
    B = value.numel()
    if B == 0:
        raise ValueError("no document has any weight")
    share = weight / weight.sum()
    mean = float((share * value).sum())
    if B < 2:
        return Interval(mean, float("inf"), B)
    variance = float((share * (value - mean)).square().sum()) * B / (B - 1)
    return Interval(mean, float(stats.t.ppf((1 + level) / 2, B - 1)) * variance**0.5, B)
