"""The table of `ebft compare`: the last figures of runs, and their differences from the first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from ebft.evaluation.lines import DocumentsLine, Line
from ebft.report.compare import (
    WHY,
    RunFigures,
    Unpaired,
    other_names,
    paired_difference,
    shared_names,
)
from ebft.scoring.interval import TOO_FEW, TOO_FEW_NOTE, Interval


def comparison_table(runs: Sequence[RunFigures]) -> Table:
    """Every figure that the runs share, with a line for each run. The caption says which figures
    are not compared, and why."""
    first, *others = runs
    table = Table(
        title="the last figures of each run, ± 95 % interval", title_justify="left",
        caption_justify="left", show_edge=False,
    )  # fmt: skip
    table.add_column("measure and run", overflow="fold")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("difference", justify="right", no_wrap=True)
    table.add_column("")
    unpaired: dict[Unpaired, None] = {}
    too_few = False
    for name in shared_names(runs):
        before = first.figures[name]
        table.add_row(Text(f"{name} ({before.unit})"))
        table.add_row(Text(f"  {first.label}"), _value(before))
        too_few |= _too_few(before)
        for run in others:
            found = paired_difference(before, run.figures[name])
            if isinstance(found, Unpaired):
                unpaired[found] = None
            too_few |= _too_few(run.figures[name]) or (
                isinstance(found, Interval) and found.too_few
            )
            table.add_row(Text(f"  {run.label}"), _value(run.figures[name]), *_difference(found))
    notes = [*_notes(runs, list(unpaired)), *([TOO_FEW_NOTE] if too_few else [])]
    table.caption = Text("\n".join(notes))
    return table


def _value(line: Line) -> str:
    if line.half_width_95 is not None:
        return f"{line.mean:.4f} ± {line.half_width_95:.4f}"
    return f"{line.mean:.4f} ({TOO_FEW})" if _too_few(line) else f"{line.mean:.4f}"


def _too_few(line: Line) -> bool:
    return isinstance(line, DocumentsLine) and line.half_width_95 is None


def _difference(found: Interval | Unpaired) -> tuple[Text, str]:
    """The difference, and an arrow if it exceeds its interval; then the difference is bold."""
    if isinstance(found, Unpaired):
        return Text(found.value, style="italic"), ""
    text = f"{found.mean:+.4f} {found.plus_minus}"
    if not found.excludes_zero:
        return Text(text), ""
    return Text(text, style="bold"), "↓" if found.mean < 0 else "↑"


def _notes(runs: Sequence[RunFigures], unpaired: Sequence[Unpaired]) -> Iterator[str]:
    yield f"differences are from {runs[0].label}, paired document by document"
    yield "↓ lower, ↑ higher: by more than the interval"
    names = shared_names(runs)
    steps = {run.label: sorted({run.figures[name].step for name in names}) for run in runs}
    if any(any(each) for each in steps.values()):  # `ebft eval` takes no step
        for label, each in steps.items():
            yield f"{label}: after step {', '.join(map(str, each))}"
    for why in unpaired:
        yield f"{why.value}: {WHY[why]}"
    if others := other_names(runs):
        yield f"not in every run, so not shown: {', '.join(others)}"
