"""One draw from next-token distributions, given the uniform random numbers to draw with."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def draw(
    logits: Float[Tensor, "N V"], uniform: Float[Tensor, "N n"], temperature: float
) -> tuple[Int[Tensor, "N n"], Float[Tensor, "N n"]]:
    """n tokens from each row's distribution, and their log-probs under it.

    Inversion of the cumulative distribution: one uniform number a token decides, so a draw can be
    repeated anywhere. Sums are float64 because a float32 sum over a vocabulary of 10⁵ is off by
    more than its rarest tokens are likely.
    """
    log_probs = torch.log_softmax(logits / temperature, dim=-1)
    cumulative = log_probs.double().exp().cumsum(-1)
    # Rounding leaves the last sum near 1 but not at it; scaling keeps every draw inside.
    target = uniform.double() * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, target, right=True).clamp(max=logits.shape[1] - 1)
    return tokens, log_probs.gather(1, tokens)
