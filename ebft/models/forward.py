"""Forward passes over decoders of any architecture, up to their last hidden states."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Mixed precision of forwards: matrix products in `precision`, weights as they are."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16)


def decode(
    model: PreTrainedModel,
    tokens: Int[Tensor, "B Q"],
    positions: Int[Tensor, "B Q"],
    mask: Bool[Tensor, "B 1 Q K"],
    cache: Cache | None = None,
) -> Float[Tensor, "B Q d"]:
    """Last hidden states of the decoder (final norm included), without the LM head.

    With a cache, the keys are those in the cache followed by the Q new ones, which are added.
    """
    output = model.base_model(
        input_ids=tokens,
        position_ids=positions,
        attention_mask=mask,
        past_key_values=cache,
        use_cache=cache is not None,
    )
    return cast(Tensor, output.last_hidden_state)
