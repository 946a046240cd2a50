"""Pooling: from features of a rollout's G tokens to features of the rollout."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Pooling = Literal["last", "mean", "all", "each"]
POOLING = (
    "features of the last token, their mean, or all tokens side by side; each: as all, but every "
    "token has a reward of its own, for what it leads to"
)
"""What a recipe's `pooling` says of itself."""


def pool(
    tokens: Float[Tensor, "*N G D"], mask: Bool[Tensor, "*N G"], pooling: Pooling
) -> Float[Tensor, "*N F"]:
    """Features of the last token, their mean over tokens, or all of them side by side.

    Only tokens in the mask count; each row has at least one. For `all` and `each`, F = G·D and
    tokens that are missing are zeros.
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
