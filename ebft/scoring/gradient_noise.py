"""The gradient-noise scale: the documents per step at which signal and noise are equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


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
