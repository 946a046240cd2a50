"""What a verifier sees: contexts, rollouts and references as texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast

import torch
from jaxtyping import Int
from pydantic import AfterValidator
from torch import Tensor

from ebft.rollout.records import Rollouts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a verifier sees: the context's text, a rollout after it, the reference, and the check.

    `check` is the document's own: unit tests, an expected answer; empty if the data has none.
    `document` is its name, for messages.
    """

    context: str
    rollout: str
    reference: str
    check: str
    document: str


def attempts_of(rollouts: Rollouts, tokenizer: PreTrainedTokenizerBase) -> list[Attempt]:
    """The n attempts of every context, context by context, as texts."""
    c, attempts = rollouts.contexts, []
    for p in range(len(c)):
        row = int(c.row[p])
        document = c.documents[row]
        context = c.tokens[row, : int(c.anchor[p])]
        before = _text(context, tokenizer)
        reference = _after(before, context, _reference(rollouts, p), tokenizer)
        for tokens, mask in zip(rollouts.tokens[p], rollouts.mask[p], strict=True):
            rollout = _after(before, context, tokens[mask], tokenizer)
            attempts.append(Attempt(before, rollout, reference, document.check, document.name))
    return attempts


def _reference(rollouts: Rollouts, p: int) -> Int[Tensor, " _"]:
    """What follows a context: after a prompt all of its completion, however short rollouts are."""
    c = rollouts.contexts
    document, anchor = c.documents[int(c.row[p])], int(c.anchor[p])
    if c.stop_at_eos and anchor == document.prompt_length:
        return document.tokens[anchor:].to(c.tokens.device)
    return c.reference[p][c.reference_mask[p]]


def _not_empty(stop: str) -> str:
    if not stop:
        raise ValueError("is in front of every text, so nothing would be left; leave it out")
    return stop


StopTexts = tuple[Annotated[str, AfterValidator(_not_empty)], ...]
"""An option: texts that `cut` ends a completion before."""


def cut(text: str, stop: Sequence[str]) -> str:
    """The text before the first of the `stop` texts in it."""
    found = [at for word in stop if (at := text.find(word)) >= 0]
    return text[: min(found, default=len(text))]


def _after(
    before: str,
    context: Int[Tensor, " a"],
    tokens: Int[Tensor, " _"],
    tokenizer: PreTrainedTokenizerBase,
) -> str:
    """The text that `tokens` add to the context's, which is `before`."""
    # Decoded together with the context: some tokenizers drop a space where a text begins.
    whole = _text(torch.cat([context, tokens]), tokenizer)
    if whole.startswith(before):
        return whole.removeprefix(before)
    # The context ends within a character, so that its text alone ends with a replacement for it.
    return _text(tokens, tokenizer)


def _text(tokens: Int[Tensor, " _"], tokenizer: PreTrainedTokenizerBase) -> str:
    return cast(str, tokenizer.decode(tokens.tolist(), skip_special_tokens=True))
