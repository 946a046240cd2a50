"""Means over held-out documents with confidence intervals, and of changes between evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from ebft.parts.measurements import Measurement

Weighted = tuple[Float[Tensor, " B"], Float[Tensor, " B"]]
"""The value of each document, and its weight."""
Clusters = Int[Tensor, " B"] | None
"""What each document is a part of, as numbers; None if each is a whole."""
ROUNDING = 1e-20
"""A variance that is rounding alone: one document of a million that differs has 1e-12."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the half-width of its confidence interval, from `count` independent values."""

    mean: float
    half_width: float
    count: int

    @property
    def excludes_zero(self) -> bool:
        return abs(self.mean) > self.half_width

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {self.half_width:.4f}"


def mean_interval(measurement: Measurement, *, level: float = 0.95) -> Interval:
    """The measurement's mean over documents, weighted by what each value is a mean of.

    Raises `ValueError` if no document has weight.
    """
    return difference(
        [(measurement.value, measurement.weight)], [],
        clusters=measurement.clusters, share=measurement.share, level=level,
    )  # fmt: skip


def paired_change(before: Measurement, after: Measurement, *, level: float = 0.95) -> Interval:
    """after − before, document by document, so that differences between documents cancel.

    Weights may change with the policy, as where values are means over its own rollouts' tokens.
    Raises `ValueError` if the two are not of the same documents.
    """
    if before.name != after.name or len(before.value) != len(after.value):
        raise ValueError(f"{before.name} and {after.name} are not of the same documents")
    return difference(
        [(after.value, after.weight)], [(before.value, before.weight)],
        clusters=after.clusters, share=after.share, level=level,
    )  # fmt: skip


def difference(
    ours: Sequence[Weighted],
    theirs: Sequence[Weighted],
    *,
    clusters: Clusters,
    share: bool = False,
    level: float = 0.95,
) -> Interval:
    """The mean of some ratio estimates Σwv/Σw less that of others, all of the same documents.

    Clusters, not documents, contexts or tokens, are the sample: what belongs to one is correlated.
    A document's part in the error is Σ over ours of w(v−m)/Σw, over their number, less the same of
    theirs; with C clusters the variance is C/(C−1) Σ over clusters of (Σ of its documents' parts)²
    (the linearised variance of a ratio; clustered as in Miller, arXiv 2411.00640), and the interval
    Student's. One cluster has an infinite interval. A document without weight is none: it was not
    measured. Raises `ValueError` for an estimate in which no document has weight.

    Of a `share`, all clusters may say the same: none passes, or none has changed. Their spread,
    which is none, says nothing, and the interval is ± 1 − (α/2)^(1/C), Clopper and Pearson's of 0
    in C.
    """
    measured = torch.stack([weight > 0 for _, weight in (*ours, *theirs)]).any(0)
    mean, part = 0.0, torch.zeros(len(measured), dtype=torch.float64)
    for sign, group in ((1, ours), (-1, theirs)):
        for value, weight in group:
            m, parts = _linearised(value.double(), weight.double())
            mean += sign * m / len(group)
            part += sign * parts / len(group)
    numbers = torch.arange(len(measured)) if clusters is None else clusters
    C = len(set(numbers[measured].tolist()))
    if C < 2:
        return Interval(mean, float("inf"), C)
    of_cluster = part.new_zeros(int(numbers.max()) + 1).index_add(0, numbers, part)
    variance = float(of_cluster.square().sum()) * C / (C - 1)
    if share and variance < ROUNDING:
        return Interval(mean, 1 - ((1 - level) / 2) ** (1 / C), C)
    return Interval(mean, float(stats.t.ppf((1 + level) / 2, C - 1)) * variance**0.5, C)


def _linearised(
    value: Float[Tensor, " B"], weight: Float[Tensor, " B"]
) -> tuple[float, Float[Tensor, " B"]]:
    """A ratio estimate, and what each document adds to its error."""
    if not weight.any():
        raise ValueError("no document has any weight")
    value = value.where(weight > 0, 0)  # whatever it is where there is no weight
    share = weight / weight.sum()
    mean = (share * value).sum()
    return float(mean), share * (value - mean)
