"""Estimators of single figures: pass@k, corpus-level figures, entropy drift, gradient noise.

Each names its source. Corpus-level figures, such as BLEU, are expressed as means over documents, so
that they have intervals. Entropy drift is whether generations get more or less random with their
length (Braverman et al. 2019); the gradient-noise scale is the documents per step at which signal
and noise are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb

from jaxtyping import Bool, Float

from ebft.lazy import Tensor, torch


def pass_at_k(n: int, passed: int, k: int) -> float:
    """1 − C(n − c, k) / C(n, k), an unbiased estimate from n attempts of which c passed.

    It is the share of subsets of k attempts with at least one that passed (Chen et al. 2021,
    equation 1). `1 − (1 − c/n)^k` would underestimate. Raises `ValueError` unless 1 ≤ k ≤ n and
    0 ≤ c ≤ n.
    """
    if not (1 <= k <= n and 0 <= passed <= n):
        raise ValueError(f"pass@{k} of {n} attempts of which {passed} passed is not defined")
    return 1 - comb(n - passed, k) / comb(n, k)


def influence_values(
    statistics: Float[Tensor, "B K"], figure: Callable[[Sequence[float]], float]
) -> Float[Tensor, " B"]:
    """Returns a value for each document; their mean is exactly `figure` of the summed statistics.

    v_i = θ + (B − 1)(θ̄ − θ_i), where θ_i leaves document i out and θ̄ is the mean of the θ_i. The
    standard error of the mean of v is the jackknife's of θ (Efron & Stein 1981). Paired differences
    of two corpora's values give the standard error of the difference.
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
    """Returns the mean of −log p over each context's tokens, and the number of tokens.

    For the policy's own tokens it estimates the policy's conditional entropy; for a reference's
    tokens it is the cross-entropy. For a calibrated policy both are equal.
    """
    tokens = mask.sum((1, 2)).double()
    return surprise.double().where(mask, 0).sum((1, 2)) / tokens.clamp(min=1), tokens


def slope_over_position(
    surprise: Float[Tensor, "P n G"], mask: Bool[Tensor, "P n G"]
) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"]]:
    """Returns the least-squares slope of −log p over the position in tokens for each context, and
    its weight.

    The weight is the sum of squares of the positions about their mean, so the weighted mean of
    slopes is the least-squares slope within contexts. If all contexts have the same positions, it
    is the slope of the mean curve. Both are 0 for a context whose tokens are all at one position.
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
    that many documents has as much noise as signal. Infinite if the estimated signal is not
    positive.
    """

    signal: float
    noise: float

    @property
    def scale(self) -> float:
        return self.noise / self.signal if self.signal > 0 else float("inf")


def gradient_noise(squared_norms: Sequence[float], mean_squared_norm: float) -> GradientNoise:
    """Returns unbiased estimates from |g_k|² of K documents' gradients g_k, and |1/K Σ g_k|².

    The squared norm of a mean of K is too large by tr Σ/K on average. `signal` may be negative if
    the noise is much larger. Raises `ValueError` for fewer than two documents.
    """
    K = len(squared_norms)
    if K < 2:
        raise ValueError(f"gradient noise needs two or more documents; there are {K}")
    one = sum(squared_norms) / K
    signal = (K * mean_squared_norm - one) / (K - 1)
    return GradientNoise(signal, one - signal)
