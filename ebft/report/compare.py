"""What runs share, and how each differs from the first: the figures of `ebft compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import torch

from ebft.evaluation.lines import DocumentsLine, Line
from ebft.scoring.interval import Interval, difference

SAME = 1e-9
"""Weights that differ by less, relatively, differ by rounding: most are counts."""


class Unpaired(Enum):
    """What keeps two figures of one name from being paired."""

    NO_DOCUMENTS = "no documents"
    UNITS = "other units"
    DOCUMENTS = "other documents"
    VALUES = "other number of values"
    CLUSTERS = "other clusters"
    WEIGHTS = "other weights"


WHY = {
    Unpaired.NO_DOCUMENTS: "lm-evaluation-harness gives no values of single documents to pair",
    Unpaired.UNITS: "one name stands for figures in two units",
    Unpaired.DOCUMENTS: "the digests of what the runs were measured on differ; give them the same "
    "data, documents, evaluation.documents and tokenizer",
    Unpaired.VALUES: "the runs' documents are the same, and there are more values of one than of "
    "the other; one of the files is damaged",
    Unpaired.CLUSTERS: "the runs do not agree on which documents belong together: they were "
    "measured by two versions of ebft, or from two data sources",
    Unpaired.WEIGHTS: "the values are means over other tokens or contexts: two settings of the "
    "evaluator, or the policies' own rollouts, some of which end early",
}


@dataclass(frozen=True, slots=True)
class RunFigures:
    """The last figures of a run, by their names, and the name that the run is shown under."""

    label: str
    figures: Mapping[str, Line]


def last_figures(lines: Sequence[Line]) -> dict[str, Line]:
    """The last figure of each name: the one after the most steps; of two, the one written last."""
    last: dict[str, Line] = {}
    for line in lines:
        if line.name not in last or line.step >= last[line.name].step:
            last[line.name] = line
    return last


def shared_names(runs: Sequence[RunFigures]) -> list[str]:
    """The names of the figures that all of the runs have, in the first run's order."""
    first, *others = runs
    return [name for name in first.figures if all(name in run.figures for run in others)]


def other_names(runs: Sequence[RunFigures]) -> list[str]:
    """The names of the figures that some of the runs lack."""
    every = dict.fromkeys(name for run in runs for name in run.figures)
    return [name for name in every if any(name not in run.figures for run in runs)]


def unlike(first: DocumentsLine, other: DocumentsLine) -> Unpaired | None:
    """Why two figures are not of the same documents, in the same unit; None if they are."""
    if first.unit != other.unit:
        return Unpaired.UNITS
    if first.documents_digest != other.documents_digest:
        return Unpaired.DOCUMENTS
    if len(first.values) != len(other.values):
        return Unpaired.VALUES
    if not torch.equal(first.clusters, other.clusters):
        return Unpaired.CLUSTERS
    return None


def paired_difference(first: Line, other: Line) -> Interval | Unpaired:
    """The mean of `other` less that of `first`, with its interval; or why they cannot be paired.

    The difference is taken document by document, and documents of one cluster count together
    (`ebft.scoring.interval.difference`).
    """
    if not isinstance(first, DocumentsLine) or not isinstance(other, DocumentsLine):
        return Unpaired.NO_DOCUMENTS
    if (why := unlike(first, other)) is not None:
        return why
    if not torch.allclose(first.weights, other.weights, rtol=SAME, atol=0):
        return Unpaired.WEIGHTS
    return difference(
        [(other.values, other.weights)], [(first.values, first.weights)],
        clusters=first.clusters, share=first.share,
    )  # fmt: skip
