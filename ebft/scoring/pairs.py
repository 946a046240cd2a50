"""Figures of means over documents and over pairs of documents, with intervals.

The squared norm of an expected gradient is such a figure: the mean of g_k·g_l over pairs of
different documents. The mean of |g_k|², over documents, also has their noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, sqrt

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from ebft.scoring.interval import Clusters, Interval

FEWEST_FOR_PAIRS = 4.0
"""Effective clusters that an interval of a mean over pairs needs: three are used to fit it."""


@dataclass(frozen=True, slots=True, eq=False)
class PairStatistic:
    """θ = E[d(x)] + E[h(x, x')] of independent documents x, x', estimated without bias.

    `own` has d of each document, `pairs` the symmetric h of each two. The estimate is the mean of
    `own`, plus the mean of `pairs` over all two documents of different clusters (a U-statistic),
    since documents of one cluster are not independent. `clusters` has the cluster of each document
    as a number; None if each document is its own.

    Statistics of the same documents can be added and scaled: noise is a statistic, and so is noise
    minus a multiple of the signal.
    """

    own: Float[Tensor, " K"]
    pairs: Float[Tensor, "K K"]
    clusters: Clusters = None

    @classmethod
    def of_documents(cls, own: Float[Tensor, " K"], clusters: Clusters = None) -> PairStatistic:
        """A mean over documents."""
        return cls(own.double(), own.new_zeros(len(own), len(own)).double(), clusters)

    @classmethod
    def of_pairs(cls, pairs: Float[Tensor, "K K"], clusters: Clusters = None) -> PairStatistic:
        """A mean over pairs; `pairs` need not be symmetric."""
        symmetric = (pairs.double() + pairs.double().mT) / 2
        return cls(symmetric.new_zeros(len(pairs)), symmetric, clusters)

    def __add__(self, other: PairStatistic) -> PairStatistic:
        return PairStatistic(self.own + other.own, self.pairs + other.pairs, self.clusters)

    def __sub__(self, other: PairStatistic) -> PairStatistic:
        return self + -1.0 * other

    def __rmul__(self, factor: float) -> PairStatistic:
        return PairStatistic(factor * self.own, factor * self.pairs, self.clusters)

    @property
    def value(self) -> float:
        """The estimate. NaN for pairs of fewer than two clusters."""
        return float(self._grouped().value())

    def variance(self) -> float:
        """The variance of the estimate over draws of clusters; infinite with fewer than
        `FEWEST_FOR_PAIRS` effective clusters.

        It is the jackknife's over clusters, without its bias. The part of a U-statistic's variance
        that is due to pairs and not to single documents is counted twice by the jackknife (Efron &
        Stein 1981, section 2), and is all of the variance if the expected gradient is 0. That part
        is estimated from the residuals of an additive fit to `pairs`, one term for each cluster.
        """
        grouped = self._grouped()
        if grouped.effective < FEWEST_FOR_PAIRS:
            return inf
        C = len(grouped.sizes)
        jackknife, of_pairs = grouped.jackknife(), grouped.variance_of_pairs()
        return max(jackknife - C / (C - 2) * of_pairs, of_pairs)

    def interval(self, *, level: float = 0.95) -> Interval:
        """The estimate with Student's interval, with effective clusters − 1 degrees of freedom."""
        variance = self.variance()
        half = inf if variance == inf else self._quantile(level) * sqrt(variance)
        return Interval(self.value, half, len(self._grouped().sizes))

    def _quantile(self, level: float) -> float:
        freedom = max(self._grouped().effective - 1, 1.0)
        return float(stats.t.ppf((1 + level) / 2, freedom))

    def _grouped(self) -> _Grouped:
        if self.clusters is None:
            return _Grouped(torch.ones_like(self.own), self.own, self.pairs)
        _, place = torch.unique(self.clusters, return_inverse=True)
        member = torch.nn.functional.one_hot(place).to(self.own)  # [K, C]
        return _Grouped(member.sum(0), self.own @ member, member.mT @ self.pairs @ member)


@dataclass(frozen=True, slots=True)
class Ratio:
    """A positive ratio of two statistics, with Fieller's interval.

    `value` is infinite if the denominator's estimate is not positive, `high` if the denominator is
    not told from zero.
    """

    value: float
    low: float
    high: float

    @property
    def told(self) -> bool:
        """Whether the denominator is told from zero."""
        return self.high < inf

    def root(self) -> Ratio:
        """The ratio of norms, from that of squared norms."""
        return Ratio(*(sqrt(max(x, 0.0)) for x in (self.value, self.low, self.high)))


def ratio(above: PairStatistic, below: PairStatistic, *, level: float = 0.95) -> Ratio:
    """Returns the ratio of two statistics of the same documents (Fieller 1954).

    The interval is all ρ ≥ 0 for which `above` − ρ·`below` is not told from zero. Unlike a normal
    approximation, it is right, and without an upper limit, if `below` is not told from zero.
    """
    x, y, t = above.value, below.value, above._quantile(level)
    value = x / y if y > 0 else inf
    vx, vy, both = above.variance(), below.variance(), (above + below).variance()
    if both == inf:
        return Ratio(value, 0.0, inf)
    # |x − ρy|² ≤ t²·Var(x − ρy) is a ρ² − 2b ρ + c ≤ 0. A linear form in ρ has no root to spare.
    covariance = (both - vx - vy) / 2
    a, b, c = y * y - t * t * vy, x * y - t * t * covariance, x * x - t * t * vx
    root = sqrt(max(b * b - a * c, 0.0))
    if y > 0 and a > 0:
        return Ratio(value, max((b - root) / a, 0.0), max((b + root) / a, 0.0))
    # `below` is not told from zero: all ρ from the positive root up, or all of them.
    low = (b - root) / a if x > 0 and c > 0 and a < 0 else 0.0
    return Ratio(value, max(low, 0.0), inf)


@dataclass(frozen=True, slots=True, eq=False)
class _Grouped:
    """A statistic by cluster: the number of documents, sums of `own`, and of `pairs`."""

    sizes: Float[Tensor, " C"]
    own: Float[Tensor, " C"]
    pairs: Float[Tensor, "C C"]

    @property
    def effective(self) -> float:
        """1/Σ h² of the clusters' shares h of the documents."""
        return float(self.sizes.sum().square() / self.sizes.square().sum())

    def value(self) -> Float[Tensor, ""]:
        return self._means(self.sizes.new_zeros(1), self.sizes.new_zeros(1), 0.0, 0.0)[0]

    def jackknife(self) -> float:
        """(C−1)/C Σ (θ_c − θ̄)², where θ_c leaves cluster c out."""
        C, of_cluster = len(self.sizes), self._between().sum(1)
        without = self._means(self.sizes, self.sizes.square(), self.own, 2 * of_cluster)
        return (C - 1) / C * float((without - without.mean()).square().sum())

    def _means(
        self,
        documents: Float[Tensor, " N"],
        squares: Float[Tensor, " N"],
        own: Float[Tensor, " N"] | float,
        pairs: Float[Tensor, " N"] | float,
    ) -> Float[Tensor, " N"]:
        """The statistic without so many documents, their squared number, and what they add."""
        left = self.sizes.sum() - documents
        between = left.square() - (self.sizes.square().sum() - squares)
        return (self.own.sum() - own) / left + (self._between().sum() - pairs) / between

    def _between(self) -> Float[Tensor, "C C"]:
        return self.pairs - self.pairs.diagonal().diag()

    def variance_of_pairs(self) -> float:
        """The variance of the mean over pairs that single clusters do not explain."""
        n, C = self.sizes, len(self.sizes)
        weight = n[:, None] * n
        weight.fill_diagonal_(0)
        h = self.pairs / (n[:, None] * n)
        # Weighted least squares of h_cc' = a_c + a_c', c ≠ c'.
        system = weight + weight.sum(1).diag()
        a = torch.linalg.lstsq(system, (weight * h).sum(1)[:, None]).solution[:, 0]
        residual = h - a[:, None] - a
        total = (weight * residual).square().sum() / weight.sum().square()
        # Each pair is in the sum twice, and in the mean twice. The fit has C coefficients.
        return 2 * float(total) * (C - 1) / (C - 3)
