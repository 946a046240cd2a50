"""The figures of `ebft compare`: those that runs share, and differences from the first run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import torch

from ebft.evaluation.lines import DocumentsLine, Line
from ebft.scoring.interval import Interval, difference

SAME = 1e-9
"""The relative difference of weights that counts as rounding; most weights are counts."""


class Unpaired(Enum):
    """The reason why two figures of the same name cannot be paired."""

    NO_DOCUMENTS = "no documents"
    UNITS = "other units"
    DOCUMENTS = "other documents"
    VALUES = "other number of values"
    CLUSTERS = "other clusters"
    WEIGHTS = "other weights"


WHY = {
    Unpaired.NO_DOCUMENTS: "lm-evaluation-harness gives no values of single documents to pair",
    Unpaired.UNITS: "the figures of this name have different units",
    Unpaired.DOCUMENTS: "the runs were measured on different documents; give them the same data, "
    "documents, evaluation.documents and tokenizer",
    Unpaired.VALUES: "the runs have the same documents, but different numbers of values; one of "
    "the files is damaged",
    Unpaired.CLUSTERS: "the runs group documents differently: they were measured by different "
    "versions of ebft, or with different data sources",
    Unpaired.WEIGHTS: "the values are means over different tokens or contexts: the evaluators have "
    "different settings, or the policies' own rollouts end at different lengths",
}


@dataclass(frozen=True, slots=True)
class RunFigures:
    """The last figures of a run by name, and the run's label."""

    label: str
    figures: Mapping[str, Line]


def last_figures(lines: Sequence[Line]) -> dict[str, Line]:
    """The figure of each name after the most steps; of several at that step, the last written."""
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
    """The names of the figures that some, but not all, of the runs have."""
    every = dict.fromkeys(name for run in runs for name in run.figures)
    return [name for name in every if any(name not in run.figures for run in runs)]


def mismatch(first: DocumentsLine, other: DocumentsLine) -> Unpaired | None:
    """Why two figures do not have the same documents and unit; None if they do."""
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
    """The mean of `other` minus that of `first`, with its interval, or why they cannot be paired.

    Differences are taken document by document, and the documents of a cluster count as one
    (`ebft.scoring.interval.difference`).
    """
    if not isinstance(first, DocumentsLine) or not isinstance(other, DocumentsLine):
        return Unpaired.NO_DOCUMENTS
    if (why := mismatch(first, other)) is not None:
        return why
    if not torch.allclose(first.weights, other.weights, rtol=SAME, atol=0):
        return Unpaired.WEIGHTS
    return difference(
        [(other.values, other.weights)], [(first.values, first.weights)],
        clusters=first.clusters, share=first.share,
    )  # fmt: skip
