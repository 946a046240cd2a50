"""Confidence intervals: of means over held-out documents, of paired changes, and over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import stats
from torch import Tensor

from ebft.parts.measurements import Measurement

Weighted = tuple[Float[Tensor, " B"], Float[Tensor, " B"]]
"""The value of each document, and its weight."""
Clusters = Int[Tensor, " B"] | None
"""What each document is a part of, as numbers; None if each is a whole."""
ROUNDING = 1e-20
"""A variance that is rounding alone: one document of a million that differs has 1e-12."""
FEWEST = 1.5
"""Effective clusters that an interval needs. By simulation, over sizes of every raggedness, 95 %
intervals of normal values cover 92 % or more from here on, and with fewer as little as 88 %."""
TOO_FEW = "too few"
"""What stands in the place of ± and a half-width, for lack of clusters."""
TOO_FEW_NOTE = f"{TOO_FEW}: no interval, as the documents are all from one text, or most of them"


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the half-width of its confidence interval, from `count` independent values.

    The half-width is infinite where there are too few values to tell.
    """

    mean: float
    half_width: float
    count: int

    @property
    def too_few(self) -> bool:
        return not isfinite(self.half_width)

    @property
    def excludes_zero(self) -> bool:
        return abs(self.mean) > self.half_width

    @property
    def plus_minus(self) -> str:
        """The half-width as tables show it."""
        return f"({TOO_FEW})" if self.too_few else f"± {self.half_width:.4f}"

    def __str__(self) -> str:
        return f"{self.mean:.4f} {self.plus_minus}"


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

    Clusters, not documents, contexts or tokens, are the sample: what belongs to one is correlated
    (as in Miller, arXiv 2411.00640). An estimate m is the weighted least-squares fit of a constant,
    in which a cluster g has the leverage h_g, its share of the weight. The cluster's part in the
    error is u_g = Σ of its documents' w(v−m)/Σw; being fitted, it is too small where h_g is large,
    and Σ u_g²/(1−h_g) has the right mean if documents are independent: CR2 of Bell & McCaffrey
    (2002). The interval is Student's with their degrees of freedom (Satterthwaite's, see
    `degrees_of_freedom`), and stays near its level where documents of one cluster are correlated,
    which tests simulate. Of several estimates, parts add up with the signs and numbers of the
    groups, and the degrees of freedom are those of the mean leverages.

    The half-width is infinite with fewer than `FEWEST` effective clusters, 1/Σh_g² of the estimate
    that has the fewest. A document without weight is none: it was not measured. Raises `ValueError`
    for an estimate in which no document has weight.

    Of a `share`, all clusters may say the same: none passes, or none has changed. Their spread,
    which is none, says nothing, and the interval is ± 1 − (α/2)^(1/C), Clopper and Pearson's of 0
    in C clusters, whatever their sizes.
    """
    measured = torch.stack([weight > 0 for _, weight in (*ours, *theirs)]).any(0)
    numbers = torch.arange(len(measured)) if clusters is None else clusters
    numbers, C = _renumbered(numbers, measured)
    mean, part, leverages = 0.0, torch.zeros(C, dtype=torch.float64), []
    for sign, group in ((1, ours), (-1, theirs)):
        for value, weight in group:
            m, u, h = _fitted(value.double(), weight.double(), numbers, C)
            mean += sign * m / len(group)
            part += sign * u / (1 - h).sqrt() / len(group)
            leverages.append(h)
    if share and C > 1 and float(part.square().sum()) < ROUNDING:
        return Interval(mean, 1 - ((1 - level) / 2) ** (1 / C), C)
    if min(1 / float(h.square().sum()) for h in leverages) < FEWEST:
        return Interval(mean, inf, C)
    quantile = stats.t.ppf((1 + level) / 2, degrees_of_freedom(torch.stack(leverages).mean(0)))
    return Interval(mean, float(quantile) * float(part.square().sum()) ** 0.5, C)


def degrees_of_freedom(h: Float[Tensor, " C"]) -> float:
    """Satterthwaite's for Σ u_g²/(1−h_g): 2 E²/Var, if documents are independent and normal.

    With variances in proportion to 1/w, the scaled parts u_g/√(1−h_g) have the covariances
    K_gk = (h_g 1[g=k] − h_g h_k)/√((1−h_g)(1−h_k)), so that E/Var comes to (tr K)²/tr K² with
    tr K = 1 and tr K² = Σh² − Σh⁴/(1−h)² + (Σh²/(1−h))²: C − 1 for equal clusters.
    """
    ratio = h.square() / (1 - h)
    return 1 / float(h.square().sum() - ratio.square().sum() + ratio.sum().square())


def _renumbered(
    numbers: Int[Tensor, " B"], measured: Bool[Tensor, " B"]
) -> tuple[Int[Tensor, " B"], int]:
    """Clusters from 0 to C − 1 of the documents that were measured; the others are in cluster 0."""
    found, places = torch.unique(numbers[measured], return_inverse=True)
    renumbered = torch.zeros_like(numbers)
    renumbered[measured] = places
    return renumbered, len(found)


def _fitted(
    value: Float[Tensor, " B"], weight: Float[Tensor, " B"], numbers: Int[Tensor, " B"], C: int
) -> tuple[float, Float[Tensor, " C"], Float[Tensor, " C"]]:
    """A ratio estimate, each cluster's part in its error, and each cluster's leverage."""
    if not weight.any():
        raise ValueError("no document has any weight")
    value = value.where(weight > 0, 0)  # whatever it is where there is no weight
    share = weight / weight.sum()
    mean = (share * value).sum()
    none = share.new_zeros(C)
    part = none.index_add(0, numbers, share * (value - mean))
    return float(mean), part, none.index_add(0, numbers, share)


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
