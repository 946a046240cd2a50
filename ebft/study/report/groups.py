"""The groups of runs in a picture: levels of one factor, pairs of levels of two, or variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from ebft.study.arms import short_names
from ebft.study.report.records import RunRecord, StudyRecord

VARIANTS = "variants"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Groups of runs by label, in order; `title` is the factor's short name.

    `against` is the group that the others are compared with: the one with the reference arm.
    """

    title: str
    groups: Mapping[str, Sequence[RunRecord]]
    against: Sequence[RunRecord]


def comparisons(study: StudyRecord) -> list[Comparison]:
    """A comparison of the variants, if there are several, and one for each factor.

    The groups of a factor are the arms that set only this factor. If there are none, a group has
    all arms of the grid with a level of the factor.
    """
    found = []
    if len(named := _variants(study)) > 1:
        found.append(_comparison(study, VARIANTS, named))
    short = short_names(list(study.plan.factors))
    for key, labels in study.plan.factors.items():
        alone = _by_level(study, key, labels, alone=True)
        groups = alone if len(alone) > 1 else _by_level(study, key, labels, alone=False)
        if alone and not any(_is_in(study.reference_runs, runs) for runs in alone.values()):
            groups = {study.plan.reference: study.reference_runs, **alone}
        if len(groups) > 1:
            found.append(_comparison(study, short[key], groups))
    every = {label: study.of(label) for label in study.labels()}
    return found or [_comparison(study, VARIANTS, every)]


@dataclass(frozen=True, slots=True)
class Crossing:
    """Two factors of a grid, and the runs for each pair of their levels."""

    rows: str
    columns: str
    row_labels: Sequence[str]
    column_labels: Sequence[str]
    cells: Mapping[tuple[str, str], Sequence[RunRecord]]


def crossings(study: StudyRecord) -> list[Crossing]:
    """A crossing for each pair of factors in the grid."""
    factors = study.plan.factors
    short, found = short_names(list(factors)), []
    for rows, columns in combinations(factors, 2):
        cells: dict[tuple[str, str], list[RunRecord]] = {}
        for run in study.done:
            for levels in _levels(run):
                if rows in levels and columns in levels:
                    cells.setdefault((levels[rows], levels[columns]), []).append(run)
        if cells:
            found.append(
                Crossing(
                    short[rows],
                    short[columns],
                    [it for it in factors[rows] if any(it == row for row, _ in cells)],
                    [it for it in factors[columns] if any(it == col for _, col in cells)],
                    cells,
                )
            )
    return found


def _comparison(
    study: StudyRecord, title: str, groups: Mapping[str, Sequence[RunRecord]]
) -> Comparison:
    holding = [runs for runs in groups.values() if _is_in(study.reference_runs, runs)]
    return Comparison(title, groups, holding[0] if holding else study.reference_runs)


def _variants(study: StudyRecord) -> dict[str, list[RunRecord]]:
    found: dict[str, list[RunRecord]] = {}
    for run in study.done:
        for arm in run.description.arms:
            if arm.variant and not arm.levels:
                found.setdefault(arm.variant, []).append(run)
    return found


def _by_level(
    study: StudyRecord, key: str, labels: Sequence[str], *, alone: bool
) -> dict[str, list[RunRecord]]:
    found: dict[str, list[RunRecord]] = {label: [] for label in labels}
    for run in study.done:
        for levels in _levels(run):
            if key in levels and (len(levels) == 1) >= alone:
                found[levels[key]].append(run)
    return {label: runs for label, runs in found.items() if runs}


def _levels(run: RunRecord) -> list[Mapping[str, str]]:
    return [arm.levels for arm in run.description.arms]


def _is_in(some: Sequence[RunRecord], runs: Sequence[RunRecord]) -> bool:
    return any(run.name == other.name for run in some for other in runs)
