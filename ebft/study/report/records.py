"""What a study's folder holds of its runs, as records and as one tidy table."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ebft.errors import UserError
from ebft.report.names import family
from ebft.study.folder import DONE, RunFolder, StudyFolder, read_json, read_lines

PENDING = "not done"
log = logging.getLogger("ebft")


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One measurement after some steps: its mean, and each document's value, weight and cluster.

    `at` is where it stands on a curve that several make (tokens of a completion), if on any.
    """

    name: str
    at: int | None
    unit: str
    mean: float
    half_width: float
    values: Tensor
    weights: Tensor
    clusters: Tensor
    digest: str


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run: which arm and seed, how it ended, what was measured.

    `evaluations` are by steps done and name. `arms` are dictionaries of `label`, `variant` and
    `levels`; the first is the one it is called by.
    """

    name: str
    arms: Sequence[Mapping[str, Any]]
    seed: int
    steps: int
    tflop: float | None
    status: str
    error: str
    seconds: float
    surroundings: Mapping[str, str]
    evaluations: Mapping[int, Mapping[str, Evaluated]]
    training: Mapping[int, Mapping[str, float]]

    @property
    def label(self) -> str:
        return str(self.arms[0]["label"])

    @property
    def done(self) -> bool:
        return self.status == DONE

    @property
    def first(self) -> Mapping[str, Evaluated]:
        return self.evaluations[min(self.evaluations)] if self.evaluations else {}

    @property
    def last(self) -> Mapping[str, Evaluated]:
        return self.evaluations[max(self.evaluations)] if self.evaluations else {}

    def tflop_after(self, step: int) -> float | None:
        return None if self.tflop is None else self.tflop * step / self.steps


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """A study: its plan and every run of it, in order."""

    title: str
    command: str
    study: str
    reference: str
    factors: Mapping[str, Sequence[str]]
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
        return [run for run in self.done if any(arm["label"] == self.reference for arm in run.arms)]

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
    if not folder.plan.is_file():
        raise UserError(f"{path}: no study in this folder ({folder.plan.name} is not there)")
    plan = read_json(folder.plan)
    return StudyRecord(
        title=plan["title"],
        command=plan["command"],
        study=plan["study"],
        reference=plan["reference"],
        factors=plan["factors"],
        runs=[
            _read_run(run)
            for run in map(folder.run, plan["runs"])
            if run.description.is_file() or _warn_missing(run)
        ],
    )


def _warn_missing(run: RunFolder) -> bool:
    log.warning("%s: is in the study's plan and not in its folder; left out", run.path.name)
    return False


def _read_run(folder: RunFolder) -> RunRecord:
    about, result = read_json(folder.description), folder.result() or {}
    evaluations: dict[int, dict[str, Evaluated]] = {}
    for line in read_lines(folder.evaluations):  # a run that was resumed may say a step twice
        evaluations.setdefault(line["step"], {})[line["name"]] = Evaluated(
            name=line["name"],
            at=line["at"],
            unit=line["unit"],
            mean=line["mean"],
            half_width=line["half_width_95"],
            values=torch.tensor(line["values"], dtype=torch.float64),
            weights=torch.tensor(line["weights"], dtype=torch.float64),
            # Studies of before there were any counted each document by itself.
            clusters=torch.tensor(line.get("clusters", list(range(len(line["values"]))))),
            digest=line["documents_digest"],
        )
    measured = {name for named in evaluations.values() for name in named}
    training: dict[int, dict[str, float]] = {}
    for line in read_lines(folder.steps):
        figures = {k: v for k, v in line.items() if k != "step" and k not in measured}
        if figures:
            training.setdefault(line["step"], {}).update(figures)
    return RunRecord(
        name=folder.path.name,
        arms=about["arms"],
        seed=about["seed"],
        steps=about["steps"],
        tflop=about["tflop"],
        status=result.get("status", PENDING),
        error=result.get("error", ""),
        seconds=result.get("seconds", 0.0),
        surroundings=result.get("surroundings", {}),
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
                "variant": run.arms[0]["variant"] or None,
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
                half_width_95=it.half_width, documents=int((it.weights > 0).sum()),
            )  # fmt: skip
    for step, figures in run.training.items():
        for name, value in figures.items():
            row(step, "training", name, value=value)
    return rows
