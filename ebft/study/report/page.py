"""The report as one HTML page that needs no other files, and its tables as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from ebft.printable import plain_markdown
from ebft.report.page import embedded, render
from ebft.report.surroundings import merged
from ebft.scoring.interval import TOO_FEW
from ebft.study.report.records import StudyRecord

LEVEL_NOTE = (
    "± is the half-width of a 95 % interval. Over seeds (Student t): the uncertainty from training "
    "with other seeds; with few seeds it is wide, because the spread is not well known. Pooled: "
    "the same for a difference, with one spread for all arms (randomised blocks). Over documents: "
    "the uncertainty from measuring on other held-out documents, for these trained policies; "
    "documents of one file count as one, and with too few there is no interval. With many "
    "comparisons, one in twenty intervals misses the true value by chance."
)
HEADINGS = (
    "arm", "seeds", "value", "± seeds", "change", "± documents", "± seeds",
    "difference", "± documents", "± seeds", "± pooled",
)  # fmt: skip
CELLS = (
    "value", "value_seeds", "change", "change_documents", "change_seeds",
    "difference", "difference_documents", "difference_seeds", "difference_pooled",
)  # fmt: skip
REPORTED = "Reported by others"
REPORTED_HEADINGS = ("measurement", "arm", "reported", "this study", "± seeds")
BASE = "base"
"""The arm of a reported figure of the model before training."""
SIGNED = ("change", "difference")
CLEAR = {"change": "change_documents", "difference": "difference_documents"}
"""The figures that are bold if they exceed a half-width, and that half-width."""


def page(study: StudyRecord, table: pd.DataFrame, pictures: Sequence[tuple[str, bytes]]) -> str:
    """The HTML page; `pictures` are captions and PNGs, which are embedded."""
    return render(
        "study.html",
        package="ebft.study.report",
        title=study.plan.title,
        study=study,
        headings=HEADINGS,
        reported_title=REPORTED,
        reported_headings=REPORTED_HEADINGS,
        tables=_tables(table),
        reported=_reported(study, table),
        note=LEVEL_NOTE,
        pictures=[(caption, embedded(drawn)) for caption, drawn in pictures],
        unfinished=[run for run in study.runs if not run.done],
        seeds=sorted({run.seed for run in study.runs}),
        surroundings=merged(
            [run.result.surroundings for run in study.runs if run.result is not None]
        ),
        names=_names(study),
    )


def markdown(study: StudyRecord, table: pd.DataFrame) -> str:
    """The tables as Markdown."""
    title, reference = plain_markdown(study.plan.title), plain_markdown(study.plan.reference)
    lines = [f"# {title}", ""]
    if study.plan.note:
        lines += [f"**{plain_markdown(study.plan.note)}**", ""]
    lines += [f"Reference: {reference}. {LEVEL_NOTE}", ""]
    if reported := _reported(study, table):
        lines += [f"## {REPORTED}", "", _line(REPORTED_HEADINGS), _line(["---"] * 5)]
        lines += [*(_line(map(plain_markdown, row)) for row in reported), ""]
    for heading, rows in _tables(table):
        lines += [f"## {plain_markdown(heading)}", ""]
        lines += [_line(HEADINGS), _line(["---"] * len(HEADINGS))]
        for row in rows:
            cells = [(plain_markdown(text), clear) for text, clear in row]
            lines.append(_line([f"**{text}**" if clear else text for text, clear in cells]))
        lines.append("")
    lines += [
        plain_markdown(f"{run.name}: {run.status}. {run.error}")
        for run in study.runs
        if not run.done
    ]
    return "\n".join(lines).rstrip() + "\n"


def _reported(study: StudyRecord, table: pd.DataFrame) -> list[tuple[str, ...]]:
    """The measurement, the arm, the figure that others report, and ours with its half-width over
    seeds: a dash if this study has none."""
    found: list[tuple[str, ...]] = []
    for measure, arms in study.plan.reported.items():
        for arm, value in arms.items():
            ours, half_width = _ours(study, table, measure, arm)
            found.append((measure, arm, f"{value:.4g}", ours, half_width))
    return found


def _ours(study: StudyRecord, table: pd.DataFrame, measure: str, arm: str) -> tuple[str, str]:
    if arm == BASE and arm not in study.labels():
        # The model before training, as a run of the reference measured it.
        runs = [run for run in study.reference_runs if measure in run.first]
        return (f"{runs[0].first[measure].mean:.4f}" if runs else "–"), "–"
    rows = table[(table["measure"] == measure) & (table["arm"] == arm)]
    if rows.empty:
        return "–", "–"
    return _number("value", rows["value"].iloc[0]), _number("value", rows["value_seeds"].iloc[0])


def _tables(table: pd.DataFrame) -> list[tuple[str, list[list[tuple[str, bool]]]]]:
    """A title and rows for each measure; a cell is its text and whether it is bold."""
    found = []
    for measure, rows in table.groupby("measure", sort=False):
        unit = rows["unit"].iloc[0]
        cells = [
            [
                (str(row["arm"]), False),
                (str(row["seeds"]), False),
                *((_number(name, row[name]), _is_clear(name, row)) for name in CELLS),
            ]
            for row in rows.to_dict("records")
        ]
        found.append((f"{measure} ({unit})", cells))
    return found


def _number(name: str, value: float) -> str:
    if pd.isna(value):
        return "–"
    if np.isinf(value):
        return TOO_FEW
    return f"{value:+.4f}" if name in SIGNED else f"{value:.4f}"


def _is_clear(name: str, row: dict[str, float]) -> bool:
    return name in CLEAR and abs(row[name]) > row[CLEAR[name]]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _names(study: StudyRecord) -> dict[str, list[str]]:
    """The labels of other arms with the same recipe, by the label of each arm."""
    arms = [run.description.arms for run in study.runs]
    return {first.label: [arm.label for arm in others] for first, *others in arms if others}
