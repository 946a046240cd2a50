"""Pooling: from features of a rollout's G tokens to features of the rollout."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Bool, Float

from ebft.lazy import Tensor, torch

Pooling = Literal["last", "mean", "all", "each"]
POOLING = (
    "features of the last token, their mean, or all tokens concatenated; each: as all, but with "
    "per-token rewards, and advantages that sum the rewards from a token on"
)
"""The description of the option `pooling`."""


def pool(
    tokens: Float[Tensor, "*N G D"], mask: Bool[Tensor, "*N G"], pooling: Pooling
) -> Float[Tensor, "*N F"]:
    """Returns features of the last token, their mean over tokens, or all of them concatenated.

    Only tokens in the mask count; each row has at least one. For `all` and `each`, F = G·D, and
    tokens outside the mask are zeros.
    """
    if pooling == "last":
        position = torch.arange(mask.shape[-1], device=mask.device)
        last = (mask * position).amax(-1)
        index = last[..., None, None].expand(*last.shape, 1, tokens.shape[-1])
        return tokens.gather(-2, index).squeeze(-2)
    masked = tokens * mask[..., None]
    if pooling == "mean":
        return masked.sum(-2) / mask.sum(-1, keepdim=True)
    assert pooling in ("all", "each"), pooling
    return torch.flatten(masked, -2)


def without_end(mask: Bool[Tensor, "*N G"], is_end: Bool[Tensor, "*N G"]) -> Bool[Tensor, "*N G"]:
    """Returns the mask without end-of-sequence tokens; the first token stays.

    >>> mask = torch.tensor([[True, True, False], [True, False, False]])
    >>> without_end(mask, torch.tensor([[False, True, False], [True, False, False]])).int()
    tensor([[1, 0, 0],
            [1, 0, 0]], dtype=torch.int32)
    """
    first = torch.arange(mask.shape[-1], device=mask.device) == 0
    return mask & (first | ~is_end)
