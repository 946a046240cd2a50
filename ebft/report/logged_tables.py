"""The tables that metric loggers get: held-out figures with their intervals, and rollouts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from ebft.evaluation.history import Evaluations
from ebft.models.tokenizer import text_of
from ebft.report.loggers.interface import Cell
from ebft.report.rollouts_log import evenly_spaced
from ebft.rollout.records import Rollouts
from ebft.scoring.interval import Interval, mean_interval, paired_change

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EVALUATION = ("figure", "unit", "mean", "± 95 %", "change", "± 95 % of the change", "documents")
ROLLOUTS = ("context", "context (end)", "kind", "text", "reward")
CONTEXTS = 8
"""Most contexts whose rollouts are logged."""
CONTEXT_TOKENS = 64
"""Most tokens of a context that are logged."""


def evaluation_rows(evaluations: Evaluations) -> list[list[Cell]]:
    """Returns the rows of `EVALUATION` for the last evaluation, with changes since the first one,
    which are paired by document."""
    rows: list[list[Cell]] = []
    for name, now in evaluations.last.items():
        before = evaluations.first.get(name)
        change: list[Cell] = [None, None]
        if before is not None and before is not now:
            change = [*_cells(paired_change(before, now))]
        documents = int((now.weight > 0).sum())
        rows.append([name, now.unit, *_cells(mean_interval(now)), *change, documents])
    return rows


def rollout_rows(
    rollouts: Rollouts, reward: Float[Tensor, "P n"], tokenizer: PreTrainedTokenizerBase
) -> list[list[Cell]]:
    """Returns the rows of `ROLLOUTS` for a few contexts, evenly spaced over the step: the reference
    of each, and all its rollouts by falling reward."""
    c, rows = rollouts.contexts, list[list[Cell]]()
    for number in evenly_spaced(len(c), CONTEXTS):
        row, anchor = int(c.row[number]), int(c.anchor[number])
        before = c.tokens[row, max(anchor - CONTEXT_TOKENS, 0) : anchor]
        head: list[Cell] = [number + 1, text_of(before.tolist(), tokenizer)]
        reference = c.reference[number][c.reference_mask[number]]
        rows.append([*head, "reference", text_of(reference.tolist(), tokenizer), None])
        for j in reward[number].argsort(descending=True).tolist():
            tokens = rollouts.tokens[number, j][rollouts.mask[number, j]]
            text = text_of(tokens.tolist(), tokenizer)
            rows.append([*head, "rollout", text, float(reward[number, j])])
    return rows


def _cells(interval: Interval) -> Iterator[Cell]:
    yield interval.mean
    yield None if interval.too_few else interval.half_width
