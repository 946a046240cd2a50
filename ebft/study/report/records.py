"""What a study's folder holds of its runs, as records and as one tidy table."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import pandas as pd

from ebft.errors import UserError
from ebft.evaluation.lines import DocumentsLine, read_evaluations
from ebft.report.curves import family
from ebft.study.contents import Description, Result, StudyPlan
from ebft.study.folder import PLAN_FILE, RunFolder, StudyFolder, read_steps

PENDING = "not done"
log = logging.getLogger("ebft")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run: which arm and seed, how it ended, what was measured.

    `result` is None while it has not ended; `evaluations` are by steps done and name.
    """

    name: str
    description: Description
    result: Result | None
    evaluations: Mapping[int, Mapping[str, DocumentsLine]]
    training: Mapping[int, Mapping[str, float]]

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
        """Why it failed; empty if it has not."""
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
    """A study: its plan and every run of it, in order."""

    plan: StudyPlan
    runs: Sequence[RunRecord]

    @property
    def done(self) -> list[RunRecord]:
        return [run for run in self.runs if run.done]

    def labels(self) -> list[str]:
        """The arms that have a run that is done, in order."""
        return list(dict.fromkeys(run.label for run in self.done))

    def of(self, label: str) -> list[RunRecord]:
        """An arm's runs that are done."""
        return [run for run in self.done if run.label == label]

    @property
    def reference_runs(self) -> list[RunRecord]:
        reference = self.plan.reference
        return [
            run for run in self.done if any(arm.label == reference for arm in run.description.arms)
        ]

    def measures(self) -> list[str]:
        """What was measured on held-out documents, in order."""
        return list(dict.fromkeys(name for run in self.done for name in run.last))

    def single(self) -> list[str]:
        """The measures that are a figure by themselves."""
        curves = {name for members in self.families().values() for _, name in members}
        return [name for name in self.measures() if name not in curves]

    def families(self) -> dict[str, list[tuple[int, str]]]:
        """The measures that make a curve, by its name: where each stands on it, in order."""
        found: dict[str, set[tuple[int, str]]] = {}
        for run in self.done:
            for name, it in run.last.items():
                if it.at is not None:
                    found.setdefault(family(name, it.at), set()).add((it.at, name))
        return {family: sorted(members) for family, members in found.items()}


def read_study(path: Path) -> StudyRecord:
    """Reads a study's folder. Raises `UserError` if there is no study in it."""
    folder = StudyFolder(path)
    plan = folder.plan()
    if plan is None:
        raise UserError(f"{path}: no study in this folder ({PLAN_FILE} is not there)")
    runs = [_read_run(folder.run(name)) for name in dict.fromkeys(plan.runs)]
    record = StudyRecord(plan, [run for run in runs if run is not None])
    for run in record.runs:
        for key, label in (item for arm in run.description.arms for item in arm.levels.items()):
            if label not in plan.factors.get(key, [label]):
                raise UserError(
                    f"{path / PLAN_FILE} is damaged: factors: {key} has no value {label}, and "
                    f"the run {run.name} has it; the study's own command writes it again"
                )
    return record


def _read_run(folder: RunFolder) -> RunRecord | None:
    description = folder.description()
    if description is None:
        log.warning("%s: is in the study's plan and not in its folder; left out", folder.path.name)
        return None
    result = folder.result()  # before its figures: of a run that is done, these are all there
    evaluations: dict[int, dict[str, DocumentsLine]] = {}
    lines = read_evaluations(folder.evaluations) if folder.evaluations.exists() else []
    for evaluated in lines:  # a run that was resumed may say a step twice
        if isinstance(evaluated, DocumentsLine):
            evaluations.setdefault(evaluated.step, {})[evaluated.name] = evaluated
    measured = {name for named in evaluations.values() for name in named}
    training: dict[int, dict[str, float]] = {}
    for step in read_steps(folder.steps):
        figures = {k: v for k, v in step.figures.items() if k not in measured}
        if figures:
            training.setdefault(step.step, {}).update(figures)
    return RunRecord(
        name=folder.path.name,
        description=description,
        result=result,
        evaluations=dict(sorted(evaluations.items())),
        training=dict(sorted(training.items())),
    )


def tidy(study: StudyRecord) -> pd.DataFrame:
    """Every figure of every run that is done, one a row.

    `tflop` and `seconds` are those of training up to that step, evaluations not counted.
    """
    return pd.DataFrame([row for run in study.done for row in _rows(run)], columns=COLUMNS)


COLUMNS = [
    "run", "arm", "variant", "seed", "split", "step", "measure", "unit", "value", "half_width_95",
    "documents", "tflop", "seconds",
]  # fmt: skip


def _rows(run: RunRecord) -> list[dict[str, object]]:
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
        for name, value in figures.items():
            row(step, "training", name, value=value)
    return rows
