"""Texts → tokens, for texts that begin a document and for those that go on from another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ebft.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPACES = ("▁", "Ġ")
"""How tokens write the space before a word: SentencePiece's, and byte-level BPE's."""
MARKS = ("\n", "|", "x")
"""Texts that another is put after, so that it does not begin the whole."""


def begins_with(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The token that this tokenizer puts before a text, if it does: models trained with a
    beginning-of-sequence token need it in front of every document, cut ones too."""
    ids: list[int] = tokenizer("a").input_ids
    return ids[:1] if ids[0] == tokenizer.bos_token_id else []


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of each text, without any that the tokenizer would put before or after it."""
    if not texts:  # which tokenizers take for one text
        return []
    # verbose=False: a text longer than the model's context is cut, so no warning about it.
    encoded = tokenizer(
        list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False
    )
    ids: list[list[int]] = encoded.input_ids
    return ids


def encode_completions(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of texts that go on from a prompt.

    Llama's tokenizers put a space before whatever they are given, which is right before a prompt,
    and between a prompt and its completion would be another text. Raises `UserError` for a
    tokenizer that cannot be kept from it.
    """
    (letter,) = encode(tokenizer, ["a"])
    if not str(tokenizer.convert_ids_to_tokens(letter)[0]).startswith(SPACES):
        return encode(tokenizer, texts)
    return [_encode_after_mark(tokenizer, text) for text in texts]


def _encode_after_mark(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    for mark in MARKS:
        before, whole = encode(tokenizer, [mark, mark + text])
        # Else the mark and the text share a token, or the tokenizer drops the mark by itself.
        if before and whole[: len(before)] == before:
            return whole[len(before) :]
    raise UserError(
        f"model.path: its tokenizer puts a space before the completion {text[:40]!r}, which would "
        "part it from its prompt; give another model"
    )
