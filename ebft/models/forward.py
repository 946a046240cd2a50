"""Forward passes over decoders of any architecture: hidden states first, logits where needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

HEAD_ROWS = 1024
"""Hidden states put through the LM head at a time: bounds the memory of its logits."""


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Mixed precision of forwards: matrix products in `precision`, weights as they are."""
    return torch.autocast(
        device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16
    )


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


def logits(model: PreTrainedModel, hidden: Float[Tensor, "N d"]) -> Float[Tensor, "N V"]:
    """What the model's own head makes of last hidden states, in float32 at least."""
    out = cast(Tensor, model.get_output_embeddings()(hidden))
    out = out.to(torch.promote_types(out.dtype, torch.float32))
    cap = getattr(model.config, "final_logit_softcapping", None)  # Gemma 2 and 3 only
    return out if cap is None else torch.tanh(out / cap) * cap


def token_log_probs(
    model: PreTrainedModel,
    hidden: Float[Tensor, "N d"],
    targets: Int[Tensor, " N"],
    temperature: float = 1.0,
) -> Float[Tensor, " N"]:
    """log p(target | hidden state) at a temperature, differentiable.

    Logits of `HEAD_ROWS` rows exist at a time; backward computes them again.
    """

    def chunk(rows: Tensor, wanted: Tensor) -> Tensor:
        scaled = logits(model, rows) / temperature
        return -nn.functional.cross_entropy(scaled, wanted, reduction="none")

    parts = [
        checkpoint(chunk, rows, wanted, use_reentrant=False)
        for rows, wanted in zip(hidden.split(HEAD_ROWS), targets.split(HEAD_ROWS), strict=True)
    ]
    return torch.cat(parts)
