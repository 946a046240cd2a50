"""Tables that a run prints: held-out figures, and rollouts with their references."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from rich.table import Table
from torch import Tensor

from ebft.evaluation.harness import NORMAL_95, HarnessFigure
from ebft.evaluation.history import Evaluations
from ebft.models.tokenizer import text_of
from ebft.parts.measurements import Measurement
from ebft.rollout.records import Rollouts
from ebft.scoring.interval import TOO_FEW_NOTE, Interval, mean_interval, paired_change

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LONGEST_WORD = len("out-of-distribution")
CONTEXT_TOKENS = 24
"""The last tokens of a context: a chat template takes about eight of them."""


def summary_table(history: Evaluations) -> Table:
    """Every measurement before and after training, and its change paired over documents."""
    table = Table(
        title="before → after, on documents not trained on (± 95 % confidence)",
        title_justify="left",
        show_edge=False,  # so that four figures fit side by side into 80 columns
    )
    table.add_column("measure", min_width=LONGEST_WORD)
    for column in ("before", "after", "change"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    shown: list[Interval] = []
    for name, before in history.first.items():
        after = history.last[name]
        change, *values = (
            paired_change(before, after), mean_interval(before), mean_interval(after)
        )  # fmt: skip
        shown += [change, *values]
        arrow = ""
        if change.excludes_zero:
            arrow = "↓" if change.mean < 0 else "↑"
        table.add_row(
            f"{name} ({before.unit})",
            *map(str, values),
            f"{change.mean:+.4f} {change.plus_minus}",
            arrow,
        )
    table.caption = (
        f"{_documents(history.last.values())}; the change is paired, document by document\n"
        f"↓ falls, ↑ rises by more than the interval{_note(shown)}"
    )
    return table


def figures_table(history: Evaluations, *, title: str) -> Table:
    """Every measurement of the last evaluation."""
    table = Table(title=f"{title} (± 95 % confidence)", title_justify="left")
    for column in ("measure", "value", "unit", "measured on"):
        left = column in ("measure", "unit")
        table.add_column(column, justify="left" if left else "right", no_wrap=column == "measure")
    intervals = {name: mean_interval(it) for name, it in history.last.items()}
    for name, measurement in history.last.items():
        row = (name, str(intervals[name]), measurement.unit, _documents([measurement]))
        table.add_row(*row)
    table.caption = _note(intervals.values()).strip() or None
    return table


def _note(shown: Iterable[Interval]) -> str:
    """A line that explains missing intervals; empty if none is missing."""
    return f"\n{TOO_FEW_NOTE}" if any(interval.too_few for interval in shown) else ""


def _documents(measurements: Iterable[Measurement]) -> str:
    """The number of documents, and of clusters (such as files) if there are fewer."""
    documents, clusters = set(), set()
    for measurement in measurements:
        documents.add(int((measurement.weight > 0).sum()))
        clusters.add(mean_interval(measurement).count)
    count = f"{_range(documents)} documents"
    return count if clusters == documents else f"{count} from {_range(clusters)} texts"


def _range(counts: set[int]) -> str:
    return " to ".join(str(count) for count in sorted({min(counts), max(counts)}))


def harness_table(figures: Sequence[HarnessFigure], *, title: str) -> Table:
    """Every figure of lm-evaluation-harness."""
    table = Table(title=f"{title}, by lm-evaluation-harness (± 95 %)", title_justify="left")
    for column in ("task", "metric", "value"):
        table.add_column(column, justify="right" if column == "value" else "left")
    for figure in figures:
        error = figure.standard_error
        interval = "" if error is None else f" ± {NORMAL_95 * error:.4f}"
        table.add_row(figure.task, figure.metric, f"{figure.value:.4f}{interval}")
    return table


def rollouts_table(
    rollouts: Rollouts,
    reward: Float[Tensor, "P n"],
    tokenizer: PreTrainedTokenizerBase,
    *,
    title: str,
    contexts: int = 3,
) -> Table:
    """A few contexts, evenly spaced over the step, with their reference, best and worst rollout."""
    table = Table(title=title, title_justify="left", show_lines=True)
    for column, ratio in {
        "context (end)": 3, "reference": 2, "highest reward": 2, "lowest reward": 2,
    }.items():  # fmt: skip
        table.add_column(column, ratio=ratio, overflow="fold")  # templates write long words
    c = rollouts.contexts

    def cell(tokens: torch.Tensor, note: str = "") -> str:
        return f"{note}{text_of(tokens.tolist(), tokenizer)!r}"

    def rollout(p: int, j: int) -> str:
        tokens = rollouts.tokens[p, j][rollouts.mask[p, j]]
        return cell(tokens, f"{float(reward[p, j]):+.2f} ")

    for p in torch.linspace(0, len(c) - 1, min(contexts, len(c))).long().tolist():
        row, anchor = int(c.row[p]), int(c.anchor[p])
        table.add_row(
            cell(c.tokens[row, max(anchor - CONTEXT_TOKENS, 0) : anchor]),
            cell(c.reference[p][c.reference_mask[p]]),
            rollout(p, int(reward[p].argmax())),
            rollout(p, int(reward[p].argmin())),
        )
    return table
