"""The inputs of verifiers: contexts, rollouts and references as texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator

from ebft.lazy import torch
from ebft.models.tokenizer import begins_with, text_of, without_end, without_start
from ebft.rollout.records import Rollouts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""Decoded for an incomplete character."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """The input of a verifier: the texts of a context, a rollout and the reference, and the check.

    Special tokens in a text are spelled. The tokens that the tokenizer puts before every text, and
    the end-of-sequence token that ends a rollout, are left out. `check` is the document's check,
    such as unit tests or an expected answer; empty if the data has none. `document` is its name,
    for messages. `stop` are the texts that end a completion in the benchmark that it is from.
    """

    context: str
    rollout: str
    reference: str
    check: str
    document: str
    stop: tuple[str, ...] = ()


def attempts_of(rollouts: Rollouts, tokenizer: PreTrainedTokenizerBase) -> list[Attempt]:
    """Returns the n attempts of each context, in order, as texts."""
    rollouts = rollouts.to(torch.device("cpu"))
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
                Attempt(
                    after.context, rollout, reference, document.check, document.name, document.stop
                )
            )
    return attempts


def _reference(rollouts: Rollouts, p: int) -> list[int]:
    """Returns the tokens after a context: after a prompt, the whole completion, which may be
    longer than a rollout."""
    c = rollouts.contexts
    document, anchor = c.documents[int(c.row[p])], int(c.anchor[p])
    ends = dict(document.completions)
    if c.stop_at_eos and anchor in ends:
        return document.tokens[anchor : ends[anchor]].tolist()
    return c.reference[p][c.reference_mask[p]].tolist()


def _not_empty(stop: str) -> str:
    if not stop:
        raise ValueError("is in front of every text, so nothing would be left; leave it out")
    return stop


StopTexts = tuple[Annotated[str, AfterValidator(_not_empty)], ...]
"""An option: texts that `cut` ends a completion before."""


def cut(text: str, stop: Sequence[str]) -> str:
    """Returns the text before the first of the `stop` texts in it."""
    found = [at for word in stop if (at := text.find(word)) >= 0]
    return text[: min(found, default=len(text))]


def shorten(attempt: Attempt, stop: Sequence[str] | None) -> Attempt:
    """Returns the attempt with its rollout cut before the first of `stop`; None: of its own."""
    return replace(attempt, rollout=cut(attempt.rollout, attempt.stop if stop is None else stop))


class _After:
    """Decodes tokens after a context, whose text is `context`. `ends`: they may end with
    end-of-sequence."""

    def __init__(
        self, tokens: list[int], tokenizer: PreTrainedTokenizerBase, *, ends: bool
    ) -> None:
        self._tokens, self._tokenizer, self._ends = tokens, tokenizer, ends
        # A character that the context ends within belongs to the text after it.
        self.context = text_of(tokens, tokenizer).rstrip(REPLACEMENT)

    def __call__(self, tokens: list[int]) -> str:
        if self._ends:
            tokens = without_end(tokens, self._tokenizer)
        # Decoded with the context, because some tokenizers drop a space at the start of a text.
        whole = text_of([*self._tokens, *tokens], self._tokenizer)
        if whole.startswith(self.context):
            return whole.removeprefix(self.context)
        return text_of(tokens, self._tokenizer)
