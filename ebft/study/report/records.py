"""The figures of a study's runs, as records and as one tidy table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import pandas as pd

from ebft.evaluation.lines import DocumentsLine, Line
from ebft.report.curves import family
from ebft.runs.metrics_log import MetricsLine
from ebft.study.contents import Description, Result, StudyPlan

PENDING = "not done"


@dataclass(frozen=True)  # without slots, for the cached properties
class RunRecord:
    """A run: its arm and seed, how it ended, and its figures.

    `result` is None if it has not ended. `lines` are its evaluations, and `steps` its metrics by
    step, both in the order of steps and without duplicates.
    """

    name: str
    description: Description
    result: Result | None
    lines: Sequence[Line]
    steps: Mapping[int, Mapping[str, float]]

    @classmethod
    def of(
        cls,
        name: str,
        description: Description,
        result: Result | None,
        lines: Iterable[Line],
        steps: Iterable[MetricsLine],
    ) -> RunRecord:
        """Makes a run from its files. Of a step that a resumed run repeated, the later counts."""
        last = {(line.step, line.name): line for line in lines}
        figures: dict[int, dict[str, float]] = {}
        for step in steps:
            figures.setdefault(step.step, {}).update(step.figures)
        return cls(
            name=name,
            description=description,
            result=result,
            lines=sorted(last.values(), key=lambda line: line.step),
            steps=dict(sorted(figures.items())),
        )

    @cached_property
    def evaluations(self) -> Mapping[int, Mapping[str, DocumentsLine]]:
        """The measurements that have values of documents, by steps done and by name."""
        found: dict[int, dict[str, DocumentsLine]] = {}
        for line in self.lines:
            if isinstance(line, DocumentsLine):
                found.setdefault(line.step, {})[line.name] = line
        return found

    @cached_property
    def training(self) -> Mapping[int, Mapping[str, float]]:
        """The metrics of each step, without the means of evaluations."""
        measured = {name for named in self.evaluations.values() for name in named}
        left = {
            step: {name: value for name, value in figures.items() if name not in measured}
            for step, figures in self.steps.items()
        }
        return {step: figures for step, figures in left.items() if figures}

    @property
    def label(self) -> str:
        return self.description.arms[0].label

    @property
    def seed(self) -> int:
        return self.description.seed

    @property
    def done(self) -> bool:
        return self.result is not None and self.result.done

    @property
    def status(self) -> str:
        return PENDING if self.result is None else self.result.status

    @property
    def error(self) -> str:
        """Why it failed; empty if it did not fail."""
        return "" if self.result is None or self.result.error is None else self.result.error

    @property
    def first(self) -> Mapping[str, DocumentsLine]:
        return self.evaluations[min(self.evaluations)] if self.evaluations else {}

    @property
    def last(self) -> Mapping[str, DocumentsLine]:
        return self.evaluations[max(self.evaluations)] if self.evaluations else {}

    def tflop_after(self, step: int) -> float | None:
        tflop = self.description.tflop
        return None if tflop is None else tflop * step / self.description.steps


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """A study: its plan and its runs, in order."""

    plan: StudyPlan
    runs: Sequence[RunRecord]

    @property
    def done(self) -> list[RunRecord]:
        return [run for run in self.runs if run.done]

    def labels(self) -> list[str]:
        """The labels of the arms that have a completed run, in order."""
        return list(dict.fromkeys(run.label for run in self.done))

    def of(self, label: str) -> list[RunRecord]:
        """The completed runs of an arm."""
        return [run for run in self.done if run.label == label]

    @property
    def reference_runs(self) -> list[RunRecord]:
        reference = self.plan.reference
        return [
            run for run in self.done if any(arm.label == reference for arm in run.description.arms)
        ]

    def measures(self) -> list[str]:
        """The names of the held-out measurements, in order."""
        return list(dict.fromkeys(name for run in self.done for name in run.last))

    def metrics(self) -> list[str]:
        """The names of the metrics of steps, in the order of the steps that have the most."""
        steps = [figures for run in self.runs for figures in run.steps.values()]
        return list(
            dict.fromkeys(name for it in sorted(steps, key=len, reverse=True) for name in it)
        )

    def single(self) -> list[str]:
        """The measures that are not points of a curve over lengths."""
        curves = {name for members in self.families().values() for _, name in members}
        return [name for name in self.measures() if name not in curves]

    def families(self) -> dict[str, list[tuple[int, str]]]:
        """The curves over lengths by name: the length and the name of each measure, in order."""
        found: dict[str, set[tuple[int, str]]] = {}
        for run in self.done:
            for name, it in run.last.items():
                if it.at is not None:
                    found.setdefault(family(name, it.at), set()).add((it.at, name))
        return {family: sorted(members) for family, members in found.items()}


def tidy(study: StudyRecord) -> pd.DataFrame:
    """Every figure of every completed run, one in each row.

    `tflop` and `seconds` are those of training up to that step, not counting evaluations.
    """
    metrics = study.metrics()
    rows = [row for run in study.done for row in _rows(run, metrics)]
    return pd.DataFrame(rows, columns=COLUMNS)


COLUMNS = [
    "run", "arm", "variant", "seed", "split", "step", "measure", "unit", "value", "half_width_95",
    "documents", "tflop", "seconds",
]  # fmt: skip


def _rows(run: RunRecord, metrics: Sequence[str]) -> list[dict[str, object]]:
    took = accumulate(figures.get("seconds", 0.0) for figures in run.training.values())
    seconds = {0: 0.0, **dict(zip(run.training, took, strict=True))}
    rows: list[dict[str, object]] = []

    def row(step: int, split: str, measure: str, **more: object) -> None:
        rows.append(
            {
                "run": run.name,
                "arm": run.label,
                "variant": run.description.arms[0].variant or None,
                "seed": run.seed,
                "split": split,
                "step": step,
                "measure": measure,
                "tflop": run.tflop_after(step),
                "seconds": seconds.get(step),
                **more,
            }
        )

    for step, named in run.evaluations.items():
        for it in named.values():
            row(
                step, "held-out", it.name, unit=it.unit, value=it.mean,
                half_width_95=it.half_width_95, documents=it.documents,
            )  # fmt: skip
    for step, figures in run.training.items():
        for name in metrics:
            if name in figures:
                row(step, "training", name, value=figures[name])
    return rows
