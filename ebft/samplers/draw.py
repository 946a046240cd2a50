"""One draw from next-token distributions, given the uniform random numbers to draw with."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

BLOCK = 128
"""Tokens whose probabilities are summed at once; a draw finds its block, then its token there."""


def draw(
    logits: Float[Tensor, "N V"], uniform: Float[Tensor, "N n"], temperature: float
) -> tuple[Int[Tensor, "N n"], Float[Tensor, "N n"]]:
    """n tokens from each row's distribution, and their log-probs under it.

    Inversion of the cumulative distribution: one uniform number a token decides, so a draw can be
    repeated anywhere. Sums are float64 because a float32 sum over a vocabulary of 10⁵ is off by
    more than its rarest tokens are likely; summing by blocks keeps that to one pass. Of a row with
    NaN or +∞ in it the log-probs are NaN, and the tokens mean nothing.
    """
    scaled = logits / temperature if temperature != 1 else logits
    highest = scaled.amax(-1, keepdim=True)
    weights = pad((scaled - highest).exp_(), (0, -logits.shape[1] % BLOCK))
    blocks = weights.view(len(logits), -1, BLOCK)
    until = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    total = until[:, -1:]
    target = uniform.double() * total
    # Rounding may leave a target at the very end: it belongs to the last block with any weight.
    last_block = (until >= total).byte().argmax(-1, keepdim=True)
    block = torch.minimum(torch.searchsorted(until, target, right=True), last_block)
    inside = blocks.gather(1, block[..., None].expand(-1, -1, BLOCK)).double()
    before = pad(until, (1, 0)).gather(1, block)
    within = (before[..., None] + inside.cumsum(-1) <= target[..., None]).sum(-1)
    # The same for the last token with any weight in its block.
    last = BLOCK - 1 - (inside > 0).flip(-1).byte().argmax(-1)
    tokens = block * BLOCK + torch.minimum(within, last)
    log_probs = scaled.gather(1, tokens) - highest - total.log().to(scaled.dtype)
    return tokens, log_probs
