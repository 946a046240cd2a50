"""Estimators of single figures: pass@k, those of a whole corpus, entropy drift, gradient noise.

Each names its source. A figure of a whole corpus, such as BLEU, becomes a mean over documents, so
that it has an interval. Entropy drift says whether generations get more or less random as they go
on (Braverman et al. 2019), and gradient noise how many documents a step needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def pass_at_k(n: int, passed: int, k: int) -> float:
    """1 − C(n − c, k) / C(n, k), an unbiased estimate from n attempts of which c passed.

    It is the share of the subsets of k attempts that have one that passed (Chen et al. 2021,
    equation 1). `1 − (1 − c/n)^k` would underestimate. Raises `ValueError` unless 1 ≤ k ≤ n and
    0 ≤ c ≤ n.
    """
    if not (1 <= k <= n and 0 <= passed <= n):
        raise ValueError(f"pass@{k} of {n} attempts of which {passed} passed is not defined")
    return 1 - comb(n - passed, k) / comb(n, k)


def influence_values(
    statistics: Float[Tensor, "B K"], figure: Callable[[Sequence[float]], float]
) -> Float[Tensor, " B"]:
    """A value for each document, whose mean is `figure` of the summed statistics, exactly.

    v_i = θ + (B − 1)(θ̄ − θ_i), where θ_i leaves document i out and θ̄ is the mean of those. The
    standard error of their mean is the jackknife's of θ (Efron & Stein 1981); the difference of two
    corpora's values, document by document, gives that of the difference.
    """
    total = statistics.sum(0)
    theta, B = figure(total.tolist()), len(statistics)
    if B == 1:
        return torch.tensor([theta], dtype=torch.float64)
    without = torch.tensor(
        [figure((total - row).tolist()) for row in statistics], dtype=torch.float64
    )
    return theta + (B - 1) * (without.mean() - without)


def mean_surprise(
    surprise: Float[Tensor, "P n G"], mask: Bool[Tensor, "P n G"]
) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"]]:
    """The mean of −log p over each context's tokens, and how many those are.

    Of a policy's own tokens it estimates the policy's conditional entropy; of a reference's it is
    the cross-entropy. For a calibrated policy both agree.
    """
    tokens = mask.sum((1, 2)).double()
    return surprise.double().where(mask, 0).sum((1, 2)) / tokens.clamp(min=1), tokens


def slope_over_position(
    surprise: Float[Tensor, "P n G"], mask: Bool[Tensor, "P n G"]
) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"]]:
    """The least-squares slope of each context's −log p over the position, a token; and its weight.

    The weight is the positions' sum of squares about their mean, so the weighted mean of slopes is
    the least-squares slope within contexts; if all have the same positions, that of the mean curve.
    Both are 0 for a context whose tokens are all at one position.
    """
    position = torch.arange(mask.shape[-1], dtype=torch.float64, device=mask.device)
    count = mask.sum((1, 2)).clamp(min=1)
    centred = (position - ((position * mask).sum((1, 2)) / count)[:, None, None]) * mask
    spread = centred.square().sum((1, 2))
    product = (centred * surprise.double().where(mask, 0)).sum((1, 2))
    return torch.where(spread > 0, product / spread.clamp(min=1e-12), 0), spread


@dataclass(frozen=True, slots=True)
class GradientNoise:
    """The expected gradient's squared norm, one document's variance, and their ratio.

    `scale` = tr Σ / |G|², in documents (McCandlish et al. 2018, the simple noise scale): a step of
    so many documents has as much noise as signal. Infinite if no signal is left of the noise.
    """

    signal: float
    noise: float

    @property
    def scale(self) -> float:
        return self.noise / self.signal if self.signal > 0 else float("inf")


def gradient_noise(squared_norms: Sequence[float], mean_squared_norm: float) -> GradientNoise:
    """Unbiased estimates from K documents' gradients g_k: |g_k|² of each, and |1/K Σ g_k|².

    The squared norm of a mean of K overshoots |G|² by tr Σ/K. `signal` may be negative when the
    noise is much larger. Raises `ValueError` for fewer than two documents.
    """
    K = len(squared_norms)
    if K < 2:
        raise ValueError(f"gradient noise is the difference between documents; there are {K}")
    one = sum(squared_norms) / K
    signal = (K * mean_squared_norm - one) / (K - 1)
    return GradientNoise(signal, one - signal)
