"""The effect of each arm of a study on each measure, with intervals over seeds and documents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ebft.evaluation.lines import DocumentsLine
from ebft.report.compare import mismatch
from ebft.scoring.interval import Interval, Spread, difference, over_seeds, pooled_spread
from ebft.study.report.records import RunRecord, StudyRecord

COLUMNS = [
    "measure", "unit", "arm", "seeds", "value", "value_seeds",
    "change", "change_documents", "change_seeds",
    "difference", "difference_documents", "difference_seeds", "difference_pooled",
]  # fmt: skip
"""`change` is from before to after training, and `difference` from the reference arm. The columns
with a suffix are half-widths of 95 % intervals, over documents or over seeds; those over documents
are infinite if there are too few clusters."""
OVER_SEEDS = [name for name in COLUMNS if name.endswith(("_seeds", "_pooled"))]


def effects(study: StudyRecord) -> pd.DataFrame:
    """One row for each measure and arm; NaN where a figure does not exist or cannot be paired."""
    rows = [
        _row(study, measure, label, spread)
        for measure in study.measures()
        for spread in [_spread(study, measure)]
        for label in study.labels()
        if any(measure in run.last for run in study.of(label))
    ]
    table = pd.DataFrame(rows, columns=COLUMNS)
    table[OVER_SEEDS] = table[OVER_SEEDS].replace(np.inf, np.nan)
    return table


def paired_documents(
    runs: Sequence[RunRecord], against: Sequence[RunRecord], measure: str, *, first: bool = False
) -> Interval | None:
    """The difference between the final values of two groups of runs, over their documents.

    With `first`, the values of `against` are those before training. None if a run lacks the
    measure, or if the runs were not measured on the same documents.
    """
    ours = [run.last.get(measure) for run in runs]
    theirs = [(run.first if first else run.last).get(measure) for run in against]
    found = [it for it in (*ours, *theirs) if it is not None]
    if not ours or not theirs or len(found) < len(ours) + len(theirs) or not _alike(found):
        return None
    weighted = [(it.values, it.weights) for it in found]
    return difference(
        weighted[: len(ours)], weighted[len(ours) :],
        clusters=found[0].clusters, share=found[0].share,
    )  # fmt: skip


def _row(study: StudyRecord, measure: str, label: str, spread: Spread) -> dict[str, object]:
    runs = [run for run in study.of(label) if measure in run.last]
    value = over_seeds([run.last[measure].mean for run in runs])
    row: dict[str, object] = {
        "measure": measure,
        "unit": runs[0].last[measure].unit,
        "arm": label,
        "seeds": len(runs),
        "value": value.mean,
        "value_seeds": value.half_width,
    }
    if all(len(run.evaluations) > 1 and measure in run.first for run in runs):
        change = over_seeds([run.last[measure].mean - run.first[measure].mean for run in runs])
        row |= {"change": change.mean, "change_seeds": change.half_width}
        if (over := paired_documents(runs, runs, measure, first=True)) is not None:
            row["change_documents"] = over.half_width
    pairs = [
        (run, other)
        for run in runs
        for other in study.reference_runs
        if run.seed == other.seed and measure in other.last and other.label != label
    ]
    if pairs:
        ours, theirs = zip(*pairs, strict=True)
        between = over_seeds([a.last[measure].mean - b.last[measure].mean for a, b in pairs])
        row |= {
            "difference": between.mean,
            "difference_seeds": between.half_width,
            "difference_pooled": spread.half_width(len(pairs)),
        }
        if (over := paired_documents(ours, theirs, measure)) is not None:
            row["difference_documents"] = over.half_width
    return row


def _spread(study: StudyRecord, measure: str) -> Spread:
    """The pooled spread over seeds of the arms that were run with every seed of the study."""
    seeds = sorted({run.seed for run in study.done})
    table = []
    for label in study.labels():
        by_seed = {run.seed: run for run in study.of(label) if measure in run.last}
        if list(by_seed) and sorted(by_seed) == seeds:
            table.append([by_seed[seed].last[measure].mean for seed in seeds])
    return pooled_spread(np.array(table)) if table else Spread(float("inf"), 0)


def _alike(found: Sequence[DocumentsLine]) -> bool:
    return all(mismatch(found[0], other) is None for other in found)
