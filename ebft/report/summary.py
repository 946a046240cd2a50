"""The table at the end of a run: held-out figures before and after, with intervals."""

from __future__ import annotations

from rich.table import Table

from ebft.evaluation.history import History
from ebft.scoring.interval import mean_interval, paired_change


def summary_table(history: History) -> Table:
    """Every measurement before → after, and its paired change over the same documents."""
    table = Table(
        title="before → after, on held-out documents (± 95 % confidence)", title_justify="left"
    )
    for column in ("measure", "before", "after", "change", ""):
        table.add_column(column, justify="left" if column in ("measure", "") else "right")
    for name, before in history.first.items():
        after = history.last[name]
        change = paired_change(before, after)
        verdict = "no clear change"
        if change.excludes_zero:
            verdict = "falls" if change.mean < 0 else "rises"
        table.add_row(
            f"{name} ({before.unit})",
            str(mean_interval(before)),
            str(mean_interval(after)),
            f"{change.mean:+.4f} ± {change.half_width:.4f}",
            verdict,
        )
    count = mean_interval(next(iter(history.first.values()))).count
    table.caption = f"{count} documents; the change is paired, document by document"
    return table
