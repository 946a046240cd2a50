"""Forward passes over decoders of any architecture, up to their last hidden states."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ebft.models.attention import no_mask, uses_tree_attention
from ebft.rollout.sees import Sees

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Mixed precision of forwards: matrix products in `precision`, weights as they are."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16)


def decode(
    model: PreTrainedModel,
    tokens: Int[Tensor, "B Q"],
    positions: Int[Tensor, "B Q"],
    sees: Sees,
    cache: Cache | None = None,
) -> Float[Tensor, "B Q d"]:
    """Last hidden states of the decoder (final norm included), without the LM head.

    With a cache, the keys are those in the cache followed by the Q new ones, which are added.
    Raises `ValueError` for a model whose attention has no tree (`models.attention`).
    """
    by_tree = uses_tree_attention(model)
    output = model.base_model(
        input_ids=tokens,
        position_ids=positions,
        attention_mask=no_mask(tokens.device) if by_tree else sees.mask(),
        past_key_values=cache,
        use_cache=cache is not None,
        sees=sees,
    )
    return cast(Tensor, output.last_hidden_state)
