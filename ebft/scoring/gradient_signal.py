"""How much of a gradient is signal, and where its noise comes from.

A step's gradient is the mean of its documents' gradients g_k. Its expectation G is the signal, and
tr Cov(g_k) divided by the documents of a step its noise. The noise has two sources: which documents
are drawn, with their references, and which rollouts are sampled given them. Two gradients of one
document, from independent sets of rollouts, have the inner product |E[g_k | document]|² on average,
without the rollouts' noise; those of two documents have |G|², without any noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ebft.scoring.interval import Clusters
from ebft.scoring.pairs import PairStatistic, Ratio, ratio

COLUMNS = 2**16
"""Dimensions of gradients that are multiplied at a time."""


def gram(ours: Float[Tensor, "K H D"], theirs: Float[Tensor, "K I D"]) -> Float[Tensor, "K H K I"]:
    """All inner products of two sets of gradients, such as sketches, in float64."""
    first, second = ours.flatten(0, 1), theirs.flatten(0, 1)
    total = torch.zeros(len(first), len(second), dtype=torch.float64, device=ours.device)
    # Not all in float64 at once.
    for x, y in zip(torch.split(first, COLUMNS, 1), torch.split(second, COLUMNS, 1), strict=True):
        total += x.double() @ y.double().mT
    return total.view(*ours.shape[:2], *theirs.shape[:2])


@dataclass(frozen=True, slots=True, eq=False)
class GradientSignal:
    """A document's gradient in three parts: signal |G|², documents' noise, rollouts' noise.

    `documents` is tr Cov(E[g_k | document]), what is left of the noise with ever more rollouts;
    `rollouts` is E tr Cov(g_k | document). All are estimated without bias, so that each may be
    negative. Units are those of squared gradients of the loss.
    """

    signal: PairStatistic
    documents: PairStatistic
    rollouts: PairStatistic

    @property
    def noise(self) -> PairStatistic:
        """tr Cov(g_k), the noise of a step of one document."""
        return self.documents + self.rollouts

    def noise_scale(self) -> Ratio:
        """tr Cov(g_k)/|G|², in documents: a step of that many has as much noise as signal."""
        return ratio(self.noise, self.signal)

    def of_step(self, documents: int) -> float:
        """E|g|² of a step's gradient g."""
        return self.signal.value + self.noise.value / documents


def signal_of_sets(products: Float[Tensor, "K H K H"], clusters: Clusters = None) -> GradientSignal:
    """Returns the parts of a gradient from one set of rollouts, given H independent sets of them.

    `products` are inner products of the gradients of K documents, with H sets each. With H = 1,
    as for a gradient without rollouts, all noise counts as the documents'.
    """
    H = products.shape[1]
    same = products.diagonal(dim1=0, dim2=2)  # [H, H, K]
    squared = same.diagonal(dim1=0, dim2=1).mean(1)  # |g_kh|²
    without_noise = squared if H == 1 else (same.sum((0, 1)) - H * squared) / (H * (H - 1))
    signal = PairStatistic.of_pairs(products.mean((1, 3)), clusters)
    return GradientSignal(
        signal=signal,
        documents=PairStatistic.of_documents(without_noise, clusters) - signal,
        rollouts=PairStatistic.of_documents(squared - without_noise, clusters),
    )


@dataclass(frozen=True, slots=True, eq=False)
class RolloutLaw:
    """The rollouts' noise for every number n of rollouts, from that of n and of 2n.

    R(n) = A/n + B/(n(n−1)): the variance of a U-statistic of order 2, to which an unbiased policy
    gradient with a leave-one-out baseline amounts. With pairwise rewards it is one of order 3,
    whose third term, 1/(n(n−1)(n−2)), is left out (Hoeffding 1948).
    """

    single: PairStatistic
    double: PairStatistic

    @classmethod
    def fit(cls, n: int, of_n: PairStatistic, of_2n: PairStatistic) -> RolloutLaw:
        """Solves for A and B. Raises `ValueError` for n < 2, where there is no such law."""
        if n < 2:
            raise ValueError(f"the noise of n = {n} and {2 * n} rollouts has no law for others")
        # n R(n) = A + B/(n−1)
        x, y = float(n) * of_n, 2.0 * n * of_2n
        double = 1 / (1 / (n - 1) - 1 / (2 * n - 1)) * (x - y)
        return cls(y - 1 / (2 * n - 1) * double, double)

    def at(self, n: int) -> PairStatistic:
        """R(n). Raises `ValueError` for n < 2."""
        if n < 2:
            raise ValueError(f"the rollouts' noise of n = {n} follows no law")
        return 1 / n * self.single + 1 / (n * (n - 1)) * self.double


def signal_of_union(
    ours: Float[Tensor, "K 2 K 2"],
    union: Float[Tensor, "K K"],
    clusters: Clusters = None,
) -> tuple[GradientSignal, PairStatistic]:
    """Returns the parts of a gradient from n rollouts, and the rollouts' noise of one from 2n.

    `ours` are the inner products of gradients from two independent sets of n rollouts, `union`
    those of the gradients from all 2n. For an estimator that is unbiased for n and for 2n the
    signal is the same, and the union's has less noise.
    """
    halves = signal_of_sets(ours, clusters)
    signal = PairStatistic.of_pairs(union, clusters)
    both = PairStatistic.of_documents(ours[:, 0, :, 1].diagonal(), clusters)
    squared = PairStatistic.of_documents(union.diagonal(), clusters)
    return GradientSignal(signal, both - signal, halves.rollouts), squared - both


def crossed(products: Float[Tensor, "K H K I"], clusters: Clusters = None) -> PairStatistic:
    """G·G' of two gradients of the same documents, without the noise that they share."""
    return PairStatistic.of_pairs(products.mean((1, 3)), clusters)


def cosine(ours: PairStatistic, theirs: PairStatistic, product: PairStatistic) -> float:
    """The cosine of two expected gradients; NaN if the estimate of a squared norm is not positive.

    It is not clipped: noise may take it beyond ±1.
    """
    if ours.value <= 0 or theirs.value <= 0:
        return float("nan")
    return product.value / float(torch.tensor(ours.value * theirs.value).sqrt())
