"""Confidence intervals: of means over held-out documents, of paired changes, and over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite

import numpy as np
from jaxtyping import Bool, Float, Int

from ebft.lazy import Tensor, torch
from ebft.parts.measurements import Measurement

Weighted = tuple[Float[Tensor, " B"], Float[Tensor, " B"]]
"""The value of each document, and its weight."""
Clusters = Int[Tensor, " B"] | None
"""The cluster of each document, as a number; None if each document is its own cluster."""
ROUNDING = 1e-20
"""Variances below this are rounding: one differing document in a million gives 1e-12."""
FEWEST = 1.5
"""Effective clusters that an interval needs. In simulations with clusters of very unequal sizes,
95 % intervals of normal values cover 92 % or more from here, and as little as 88 % below."""
TOO_FEW = "too few"
"""Shown instead of ± and a half-width if there are too few clusters."""
TOO_FEW_NOTE = f"{TOO_FEW}: no interval, because all or most documents are from one text"


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the half-width of its confidence interval, from `count` independent values.

    The half-width is infinite if there are too few values.
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
    """Returns the measurement's weighted mean over documents.

    Raises `ValueError` if no document has weight.
    """
    return difference(
        [(measurement.value, measurement.weight)], [],
        clusters=measurement.clusters, share=measurement.share, level=level,
    )  # fmt: skip


def paired_change(before: Measurement, after: Measurement, *, level: float = 0.95) -> Interval:
    """Returns after − before, paired by document, so that differences between documents cancel.

    Weights may change with the policy, for example if values are means over its rollouts' tokens.
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
    """Returns the mean of some ratio estimates Σwv/Σw minus that of others, on the same documents.

    The sampling unit is the cluster, not the document, context or token, because documents of one
    cluster are correlated (as in Miller, arXiv 2411.00640). An estimate m is the weighted
    least-squares fit of a constant, in which a cluster g has the leverage h_g, its share of the
    weight. The cluster's part in the error is u_g = Σ of its documents' w(v−m)/Σw. As a residual it
    is too small if h_g is large, and Σ u_g²/(1−h_g) has the right mean if documents are
    independent: CR2 of Bell & McCaffrey (2002). The interval is Student's with their degrees of
    freedom (Satterthwaite's, see `degrees_of_freedom`). Tests simulate that its coverage stays near
    its level if documents of one cluster are correlated. For several estimates, the parts add up
    with the signs and sizes of the groups, and the degrees of freedom use the mean leverages.

    The half-width is infinite with fewer than `FEWEST` effective clusters, 1/Σh_g² of the estimate
    that has the fewest. Documents without weight were not measured and are ignored. Raises
    `ValueError` if no document of an estimate has weight.

    For a `share`, all clusters may have the same value: none passes, or none has changed. Then the
    spread is 0, and the interval is ± 1 − (α/2)^(1/C) instead, Clopper and Pearson's for 0 of C
    clusters of any sizes.
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
    quantile = t_quantile(level, degrees_of_freedom(torch.stack(leverages).mean(0)))
    return Interval(mean, quantile * float(part.square().sum()) ** 0.5, C)


def t_quantile(level: float, freedom: int | float) -> float:
    """Returns the half-width, in standard errors, of a two-sided Student-t interval."""
    from scipy import stats  # takes half a second, which listing parts need not wait for

    return float(stats.t.ppf((1 + level) / 2, freedom))


def degrees_of_freedom(h: Float[Tensor, " C"]) -> float:
    """Returns Satterthwaite's for Σ u_g²/(1−h_g): 2 E²/Var, for independent, normal documents.

    With variances proportional to 1/w, the scaled parts u_g/√(1−h_g) have the covariances
    K_gk = (h_g 1[g=k] − h_g h_k)/√((1−h_g)(1−h_k)), so 2 E²/Var is (tr K)²/tr K² with tr K = 1 and
    tr K² = Σh² − Σh⁴/(1−h)² + (Σh²/(1−h))². For equal clusters it is C − 1.
    """
    ratio = h.square() / (1 - h)
    return 1 / float(h.square().sum() - ratio.square().sum() + ratio.sum().square())


def _renumbered(
    numbers: Int[Tensor, " B"], measured: Bool[Tensor, " B"]
) -> tuple[Int[Tensor, " B"], int]:
    """Renumbers the clusters of measured documents from 0 to C − 1; other documents get 0."""
    found, places = torch.unique(numbers[measured], return_inverse=True)
    renumbered = torch.zeros_like(numbers)
    renumbered[measured] = places
    return renumbered, len(found)


def _fitted(
    value: Float[Tensor, " B"], weight: Float[Tensor, " B"], numbers: Int[Tensor, " B"], C: int
) -> tuple[float, Float[Tensor, " C"], Float[Tensor, " C"]]:
    """Returns a ratio estimate, and each cluster's part in its error and leverage."""
    if not weight.any():
        raise ValueError("no document has any weight")
    value = value.where(weight > 0, 0)  # it may be NaN without weight
    share = weight / weight.sum()
    mean = (share * value).sum()
    none = share.new_zeros(C)
    part = none.index_add(0, numbers, share * (value - mean))
    return float(mean), part, none.index_add(0, numbers, share)


def over_seeds(values: Sequence[float], *, level: float = 0.95) -> Interval:
    """Returns the mean of S runs with a Student-t interval, which is infinite for one run.

    It covers the variation between seeds (the documents' order, the rollouts), for fixed held-out
    documents. With two or three seeds it is wide, because the spread is poorly known.
    """
    S = len(values)
    if S < 2:
        return Interval(float(values[0]), float("inf"), S)
    half = t_quantile(level, S - 1) * np.std(values, ddof=1) / S**0.5
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
        quantile = t_quantile(level, self.freedom)
        return quantile * float((2 * self.variance / seeds) ** 0.5)


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
