"""Top-k and top-p: a next-token distribution without its unlikely tokens."""

from __future__ import annotations

from jaxtyping import Float

from ebft.lazy import Tensor, torch


def truncate(
    logits: Float[Tensor, "N V"], *, temperature: float, top_k: int | None, top_p: float | None
) -> Float[Tensor, "N V"]:
    """Returns the logits with −∞ for every token outside the top k, then outside the nucleus.

    The nucleus (Holtzman et al. 2020, equation 2) is the smallest set of the likeliest tokens whose
    probabilities at `temperature`, among those that top-k kept, add up to at least `top_p`. Tokens
    as likely as the last one of the top k are kept, so that ties are not broken by the order of the
    vocabulary. For k = 1, which is greedy decoding, only the first is kept.
    """
    if top_k == 1:
        first = logits.argmax(-1, keepdim=True)
        only = torch.full_like(logits, float("-inf"))
        return only.scatter_(-1, first, logits.gather(-1, first))
    if top_k is not None and top_k < logits.shape[-1]:
        last = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < last, float("-inf"))
    if top_p is not None and top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True, stable=True)
        probs = (ordered / temperature).softmax(-1, dtype=torch.float64)
        # A token is in the nucleus if those before it add up to less than top_p.
        outside = probs.cumsum(-1) - probs >= top_p
        logits = logits.masked_fill(outside.scatter(-1, order, outside), float("-inf"))
    return logits
