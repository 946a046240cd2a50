"""The table at the end of a run: held-out figures, with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table

from ebft.evaluation.harness import NORMAL_95, HarnessFigure
from ebft.evaluation.history import History
from ebft.measurements import Measurement
from ebft.scoring.interval import TOO_FEW_NOTE, Interval, mean_interval, paired_change

LONGEST_WORD = len("out-of-distribution")


def summary_table(history: History) -> Table:
    """Every measurement before → after, and its paired change over the same documents."""
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
        f"↓ falls, ↑ rises: by more than the interval{_note(shown)}"
    )
    return table


def figures_table(history: History, *, title: str) -> Table:
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
    """A line of its own that says why some have no interval, if some have none."""
    return f"\n{TOO_FEW_NOTE}" if any(interval.too_few for interval in shown) else ""


def _documents(measurements: Iterable[Measurement]) -> str:
    """How many documents were measured, and of how many files or the like if of fewer."""
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
