"""What a verifier sees: contexts, rollouts and references as texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator

from ebft.models.tokenizer import begins_with, text_of, without_end, without_start
from ebft.rollout.records import Rollouts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer writes for a part of a character."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a verifier sees: the context's text, a rollout after it, the reference, and the check.

    The texts spell special tokens as they are written; the end-of-sequence token that ends a
    rollout is left out, and what the tokenizer puts before every text. `check` is the document's
    own: unit tests, an expected answer; empty if the data has none. `document` is its name, for
    messages.
    """

    context: str
    rollout: str
    reference: str
    check: str
    document: str


def attempts_of(rollouts: Rollouts, tokenizer: PreTrainedTokenizerBase) -> list[Attempt]:
    """The n attempts of every context, context by context, as texts."""
    c, attempts, start = rollouts.contexts, [], begins_with(tokenizer)
    for p in range(len(c)):
        row = int(c.row[p])
        document = c.documents[row]
        context = without_start(c.tokens[row, : int(c.anchor[p])].tolist(), start)
        after = _After(context, tokenizer, ends=c.stop_at_eos)
        reference = after(_reference(rollouts, p))
        for tokens, mask in zip(rollouts.tokens[p], rollouts.mask[p], strict=True):
            rollout = after(tokens[mask].tolist())
            attempts.append(
                Attempt(after.context, rollout, reference, document.check, document.name)
            )
    return attempts


def _reference(rollouts: Rollouts, p: int) -> list[int]:
    """What follows a context: after a prompt all of its completion, however short rollouts are."""
    c = rollouts.contexts
    document, anchor = c.documents[int(c.row[p])], int(c.anchor[p])
    if c.stop_at_eos and anchor == document.prompt_length:
        return document.tokens[anchor:].tolist()
    return c.reference[p][c.reference_mask[p]].tolist()


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


class _After:
    """What tokens add to the text of a context, `context`; `ends`: the last may be an end."""

    def __init__(
        self, tokens: list[int], tokenizer: PreTrainedTokenizerBase, *, ends: bool
    ) -> None:
        self._tokens, self._tokenizer, self._ends = tokens, tokenizer, ends
        # Where it ends within a character, the whole of that belongs to what comes after.
        self.context = text_of(tokens, tokenizer).rstrip(REPLACEMENT)

    def __call__(self, tokens: list[int]) -> str:
        if self._ends:
            tokens = without_end(tokens, self._tokenizer)
        # Decoded together with the context: some tokenizers drop a space where a text begins.
        whole = text_of([*self._tokens, *tokens], self._tokenizer)
        if whole.startswith(self.context):
            return whole.removeprefix(self.context)
        return text_of(tokens, self._tokenizer)
