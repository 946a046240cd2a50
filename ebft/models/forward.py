"""Forward passes of decoders of any architecture, up to their last hidden states."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ebft.models.attention import needs_mask, no_mask
from ebft.rollout.tree_mask import TreeMask

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ebft.models.cache import TreeCache


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Returns autocast: matrix products in `precision`, weights in their own precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16)


def decode(
    model: PreTrainedModel,
    tokens: Int[Tensor, "1 N"],
    positions: Int[Tensor, "1 N"],
    tree_mask: TreeMask,
    cache: TreeCache | None = None,
) -> Float[Tensor, "1 N d"]:
    """Returns the last hidden states of the decoder (final norm included), without the LM head.

    With a cache, the N new keys are written to its columns `writes_to`, and queries attend to all
    keys of the cache within the mask. Raises `ValueError` for a model whose attention does not
    support trees (`models.attention`).
    """
    output = model.base_model(
        input_ids=tokens,
        position_ids=positions,
        attention_mask=tree_mask.dense if needs_mask(model) else no_mask(tokens.device),
        past_key_values=cache,
        use_cache=cache is not None,
        tree_mask=tree_mask,
    )
    return cast(Tensor, output.last_hidden_state)
