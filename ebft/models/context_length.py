"""How many tokens a model reads at most."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebft.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def context_length(config: PretrainedConfig) -> int | None:
    """Most tokens of a text that the model computes with as it was trained to; None if there is no
    end to them.

    Beyond that rotary embeddings would go on in silence, and learned ones fail. `longrope` takes
    other frequencies for a whole batch as soon as one of its texts is longer than those that the
    model was first trained on, so that a text would depend on those beside it: it reads no more
    than these here.
    """
    text = config.get_text_config()
    # Not of its dict, where architectures have names of their own for it.
    most: int | None = getattr(text, "max_position_embeddings", None)
    rope = text.to_dict().get("rope_parameters") or {}
    if rope.get("rope_type") == "longrope":
        most = min(most or 0, rope["original_max_position_embeddings"])
    return most


def check_context_length(length: int, config: PretrainedConfig, *, key: str) -> None:
    """Raises `UserError` naming `key` for a length that the model cannot read."""
    most = context_length(config)
    if most is not None and length > most:
        raise UserError(
            f"{key} = {length}: the model reads {most} tokens at most; set {key}={most} or less"
        )
