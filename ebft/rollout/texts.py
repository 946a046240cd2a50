"""Tokens → texts, as they are: a text may spell a special token, and has the spaces that it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def text_of(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """All of the tokens as text, special ones as they are written."""
    text = tokenizer.decode(
        list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return cast(str, text)


def without_start(tokens: Sequence[int], start: Sequence[int]) -> list[int]:
    """A document's tokens without `start`, which the tokenizer puts before every text."""
    start = list(start)
    return list(tokens[len(start) :] if list(tokens[: len(start)]) == start else tokens)


def without_end(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens without one end-of-sequence token, if it is the last.

    For what ends with it: completions of a prompt, and rollouts that stop there.
    """
    ends = len(tokens) > 0 and tokens[-1] == tokenizer.eos_token_id
    return list(tokens[:-1] if ends else tokens)
