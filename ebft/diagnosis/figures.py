"""What follows from the evidence: signal and noise, the best n, the γ of equal gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from jaxtyping import Float
from torch import Tensor

from ebft.diagnosis.evidence import Evidence, RolloutEvidence
from ebft.parts.measurements import Measurement
from ebft.scoring.estimators import influence_values
from ebft.scoring.gradient_signal import (
    GradientSignal,
    RolloutLaw,
    signal_of_sets,
    signal_of_union,
)
from ebft.scoring.interval import Clusters, Interval, mean_interval
from ebft.scoring.pairs import PairStatistic, Ratio, ratio
from ebft.scoring.within_contexts import effective_share, kendall_tau

CANDIDATES = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Numbers of rollouts that are compared with the recipe's."""
FARTHEST = 4
"""How many times n, at most, the law of the rollouts' noise is used for: it is fitted to n and
2n."""
FLOP = Callable[[int], float]
"""FLOPs of a document with so many rollouts of each context."""


@dataclass(frozen=True, slots=True, eq=False)
class RolloutNoise:
    """The noise of the policy gradient for several numbers of rollouts, and what they cost.

    `noise` has tr Cov(g_k) for each n that it is known for; the recipe's is `n`.
    """

    n: int
    noise: Mapping[int, PairStatistic]
    flop: FLOP | None

    def relative(self, n: int) -> Ratio:
        """Noise × FLOPs with n rollouts, relative to the recipe's: the FLOPs of a step with as much
        noise. Noise × rollouts where FLOPs are not known."""
        cost = self.cost(n) / self.cost(self.n)
        return ratio(cost * self.noise[n], self.noise[self.n])

    def cost(self, n: int) -> float:
        return float(n) if self.flop is None else self.flop(n)

    def best(self) -> int:
        """The n with the least noise × FLOPs; the recipe's, unless another is told to be better."""
        found = {n: self.relative(n) for n in self.noise if n != self.n}
        better = {n: one.value for n, one in found.items() if one.high < 1}
        return min(better, key=lambda n: better[n], default=self.n)


@dataclass(frozen=True, slots=True, eq=False)
class Figures:
    """The figures of an alternative. Those of rollouts are None for SFT.

    `cross_entropy` is of the gradient of L_CE without γ. `gamma` is the γ at which its expected
    gradient is as long as that of L_FM, `gamma_of_steps` the one at which a step's gradients are,
    their noise included. `product` is G_FM · G_CE.
    """

    documents: int
    cross_entropy: GradientSignal
    policy: GradientSignal | None = None
    rollouts: RolloutNoise | None = None
    product: PairStatistic | None = None
    gamma: Ratio | None = None
    gamma_of_steps: float | None = None
    spread: Interval | None = None
    ranks: Mapping[str, Interval | None] | None = None
    gap: float | None = None

    def at(self, n: int) -> GradientSignal:
        """The policy gradient's parts with n rollouts of each context, one of `rollouts.noise`."""
        assert self.policy is not None
        assert self.rollouts is not None
        if n == self.rollouts.n:
            return self.policy
        rest = self.rollouts.noise[n] - self.policy.documents
        return GradientSignal(self.policy.signal, self.policy.documents, rest)


def figures_of(
    evidence: Evidence,
    *,
    n: int,
    documents_per_step: int,
    flop: FLOP | None,
    follows_law: bool,
) -> Figures:
    """Computes the figures of a recipe with n rollouts of each context.

    `follows_law`: n is large enough for the rollouts' noise to have the form of `RolloutLaw`.
    """
    clusters, documents = evidence.clusters, len(evidence.cross_entropy)
    cross_entropy = signal_of_sets(evidence.cross_entropy[:, None, :, None], clusters)
    if evidence.rollouts is None:
        return Figures(documents, cross_entropy)
    found = evidence.rollouts
    policy, noise = _policy(found, clusters, n, follows_law=follows_law)
    squared = policy.of_step(documents_per_step), cross_entropy.of_step(documents_per_step)
    return Figures(
        documents,
        cross_entropy,
        policy,
        RolloutNoise(n, noise, flop),
        product=PairStatistic.of_pairs(found.with_cross_entropy, clusters),
        gamma=ratio(policy.signal, cross_entropy.signal).root(),
        gamma_of_steps=(squared[0] / squared[1]) ** 0.5 if min(squared) > 0 else None,
        spread=_jackknife(found.spread, effective_share, clusters),
        ranks={name: _jackknife(it, kendall_tau, clusters) for name, it in found.ranks.items()},
        gap=found.gap,
    )


def _policy(
    found: RolloutEvidence, clusters: Clusters, n: int, *, follows_law: bool
) -> tuple[GradientSignal, dict[int, PairStatistic]]:
    if found.union is None:
        policy = signal_of_sets(found.sets, clusters)
        return policy, {n: policy.noise}
    policy, of_union = signal_of_union(found.sets, found.union, clusters)
    noise = {n: policy.noise, 2 * n: policy.documents + of_union}
    if follows_law:
        law = RolloutLaw.fit(n, policy.rollouts, of_union)
        others = [m for m in CANDIDATES if n / 2 <= m <= FARTHEST * n and m not in noise]
        noise |= {m: policy.documents + law.at(m) for m in others}
    # With a negative estimate nothing can be compared.
    return policy, {m: one for m, one in sorted(noise.items()) if one.value > 0 or m == n}


def _jackknife(
    statistics: Float[Tensor, "K 3"] | None,
    figure: Callable[[Sequence[float]], float],
    clusters: Clusters,
) -> Interval | None:
    """The interval of a figure of summed statistics; None if it is not defined."""
    if statistics is None:
        return None
    values = influence_values(statistics, figure)
    if not bool(values.isfinite().all()):
        return None
    weight = torch.ones_like(values)
    found = mean_interval(Measurement("figure", "", values, weight, clusters=clusters))
    return found if isfinite(found.mean) else None
