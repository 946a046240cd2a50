"""`rollouts.jsonl`: some contexts of some steps, with what the policy wrote after them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from pydantic import TypeAdapter

from ebft.errors import UserError
from ebft.files import Count, Number, Text, read_lines, write_whole
from ebft.models.tokenizer import text_of
from ebft.rollout.records import Scored

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONTEXTS = 3
CONTEXT_TOKENS = 128
"""The last tokens of a context that are kept."""
ENDS = 4
"""Of more rollouts than twice this many, only so many with the highest and the lowest rewards are
kept."""


@dataclass(frozen=True, slots=True)
class ShownRollout:
    """A rollout as text, with its reward."""

    text: Text
    reward: Number


@dataclass(frozen=True, slots=True)
class ShownContext:
    """A context of a step with its reference and its rollouts, the highest reward first."""

    step: Count
    document: Text
    context: Text
    reference: Text
    rollouts: tuple[ShownRollout, ...]

    @classmethod
    def of(cls, step: int, scored: Scored, place: int, tokenizer: PreTrainedTokenizerBase) -> Self:
        """Makes it of context number `place` of what step number `step` was trained on."""
        rollouts, rewards = scored.rollouts, scored.reward()[place].tolist()
        c = rollouts.contexts
        row, anchor = int(c.row[place]), int(c.anchor[place])
        order = sorted(range(len(rewards)), key=lambda j: -rewards[j])
        if len(order) > 2 * ENDS:
            order = [*order[:ENDS], *order[-ENDS:]]

        def text(tokens: torch.Tensor) -> str:
            return text_of(tokens.tolist(), tokenizer)

        return cls(
            step=step,
            document=c.documents[row].name,
            context=text(c.tokens[row, max(anchor - CONTEXT_TOKENS, 0) : anchor]),
            reference=text(c.reference[place][c.reference_mask[place]]),
            rollouts=tuple(
                ShownRollout(text(rollouts.tokens[place, j][rollouts.mask[place, j]]), rewards[j])
                for j in order
            ),
        )


LINE = TypeAdapter(ShownContext)


def evenly_spaced(count: int, at_most: int = CONTEXTS) -> list[int]:
    """Returns places among `count` contexts.

    >>> evenly_spaced(9), evenly_spaced(2)
    ([0, 4, 8], [0, 1])
    """
    return torch.linspace(0, count - 1, min(at_most, count)).long().tolist()


class RolloutsLog:
    """Appends a line for each of a few contexts of a step to a file."""

    def __init__(self, file: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        self._file, self._tokenizer = file, tokenizer

    def log(self, step: int, scored: Scored) -> None:
        """Appends the contexts of a step. Raises `OSError` if they cannot be written."""
        shown = [
            ShownContext.of(step, scored, place, self._tokenizer)
            for place in evenly_spaced(len(scored.rollouts.contexts))
        ]
        with self._file.open("a", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(asdict(one))}\n" for one in shown)


def read_rollouts(file: Path) -> list[ShownContext]:
    """Returns the contexts in order, without a last line that was cut off; none without a file.

    Raises `UserError` naming the first damaged line.
    """
    return [context for context, _ in _lines(file)]


def cut_rollouts(file: Path, *, after: int) -> None:
    """Removes the lines of steps beyond `after`, and a last line that was cut off.

    Raises `UserError` as `read_rollouts` does, and then changes nothing.
    """
    kept = [text + "\n" for context, text in _lines(file) if context.step <= after]
    if file.exists():
        write_whole(file, "".join(kept))


def by_step(contexts: Sequence[ShownContext]) -> dict[int, list[ShownContext]]:
    """The contexts of each step, the newest step first."""
    found: dict[int, list[ShownContext]] = {}
    for context in sorted(contexts, key=lambda context: -context.step):
        found.setdefault(context.step, []).append(context)
    return found


def _lines(file: Path) -> Iterator[tuple[ShownContext, str]]:
    try:
        yield from read_lines(file, LINE)
    except ValueError as error:
        raise UserError(
            f"{file} is damaged: {error}; delete it: "
            "it is only used to show rollouts in report.html"
        ) from error
