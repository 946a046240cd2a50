"""The tokens of a tokenizer held to the rows of a model's embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebft.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def embedded_tokens(model: PreTrainedModel) -> int:
    """Tokens that the model has an embedding for: those of numbers below this one."""
    rows: int = model.get_input_embeddings().weight.shape[0]
    return rows


def check_vocabulary(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, says: str
) -> None:
    """Raises `UserError` for a token without an embedding that occurs in texts, or that ebft puts
    before or after them.

    Special tokens beyond the embedding are allowed, for models are published that way: Gemma 3's
    token for images, a `[PAD]` that was added for batches. They occur only where a text spells
    them, and such documents are dropped.
    """
    rows = embedded_tokens(model)
    special = {number for number, it in tokenizer.added_tokens_decoder.items() if it.special}
    put = {*tokenizer("").input_ids, tokenizer.eos_token_id}
    beyond = [
        (number, token)
        for token, number in tokenizer.get_vocab().items()
        if number >= rows and (number in put or number not in special)
    ]
    if beyond:
        number, token = min(beyond)
        raise UserError(
            f"{says}: its tokenizer has tokens that the model has no embedding for ({len(beyond)}, "
            f"the first {token!r} of number {number}, and the embedding has {rows} rows); give the "
            "tokenizer that the model was trained with, or a model with resize_token_embeddings"
        )
