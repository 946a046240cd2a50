"""One draw from next-token distributions, given the uniform random numbers to draw with."""

from __future__ import annotations

from jaxtyping import Float, Int

from ebft.lazy import Tensor, torch

BLOCK = 128
"""Tokens of a block: a draw finds its block by the blocks' sums, then its token in the block."""


def draw(
    logits: Float[Tensor, "N V"], uniform: Float[Tensor, "N n"], temperature: float
) -> tuple[Int[Tensor, "N n"], Float[Tensor, "N n"]]:
    """Draws n tokens from each row's distribution; returns them and their log-probs under it.

    Inverts the cumulative distribution, so that one uniform number decides each token. Blocks are
    added in float64, and so are the tokens of the block that is drawn, because the error of a
    float32 sum over a vocabulary of 10⁵ exceeds the probability of the rarest tokens. A block's own
    sum is exact to rounding, which changes the probabilities of all of its tokens by one factor.
    For a row with NaN or +∞, log-probs are NaN and tokens are undefined.
    """
    scaled = logits / temperature if temperature != 1 else logits
    probs = scaled.softmax(-1)
    if rest := -logits.shape[1] % BLOCK:
        probs = torch.nn.functional.pad(probs, (0, rest))
    blocks = probs.view(len(logits), -1, BLOCK)
    sums = blocks.sum(-1).double()
    until = sums.cumsum(-1)
    total = until[:, -1:]
    target = uniform.double() * total
    # A target may be rounded to the total: it belongs to the last block with any weight.
    last_block = (until >= total).byte().argmax(-1, keepdim=True)
    block = torch.minimum(torch.searchsorted(until, target, right=True), last_block)
    inside = blocks.gather(1, block[..., None].expand(-1, -1, BLOCK)).double()
    # The share of the block's weight that is before the target.
    share = 1 - (until.gather(1, block) - target) / sums.gather(1, block)
    summed = inside.cumsum(-1)
    within = (summed <= (share * summed[..., -1])[..., None]).sum(-1)
    # The same for the last token with any weight in its block.
    last = BLOCK - 1 - (inside > 0).flip(-1).byte().argmax(-1)
    tokens = block * BLOCK + torch.minimum(within, last)
    log_probs = probs.gather(1, tokens).log() - total.log().to(probs.dtype)
    return tokens, log_probs
