"""What lies in a study's folder, and how it is read and written.

plan.json              the study as it was last called: options, command, runs in order
runs/NAME/run.json     which arm and seed this is
runs/NAME/recipe.yaml  its resolved recipe
runs/NAME/output/      the run's own output_dir
runs/NAME/output.log   what it printed
runs/NAME/result.json  how it ended: there once it is done or has failed
runs/NAME/lock         held by the process that runs it
remembered/            what was measured before first steps, once for runs that agree in it
report/                tables, pictures, index.html
record/                the study as one small folder (`ebft.study.report.record_files`)
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock
from pydantic import TypeAdapter

from ebft.errors import UserError
from ebft.files import parse_json, read_text, record, write_whole
from ebft.runs.metrics_log import MetricsLine, read_metrics
from ebft.study.contents import (
    DESCRIPTION,
    PLAN,
    RESULT,
    Description,
    Result,
    StudyPlan,
)

RECIPE = "recipe.yaml"
PLAN_FILE = "plan.json"
DESCRIPTION_FILE = "run.json"
RESULT_FILE = "result.json"
NAME_LENGTH = 80
"""Most letters of a label that are in a file's name."""

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run."""

    path: Path

    @property
    def study(self) -> StudyFolder:
        return StudyFolder(self.path.parent.parent)

    @property
    def recipe(self) -> Path:
        return self.path / RECIPE

    @property
    def output(self) -> Path:
        return self.path / "output"

    @property
    def checkpoints(self) -> Path:
        return self.output / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.output / "metrics.jsonl"

    @property
    def former_metrics(self) -> Path:
        """Where a study's runs logged before every run had its metrics.jsonl: studies that were
        recorded then are still reported. A run that was resumed since has both."""
        return self.output / "logs" / "steps.jsonl"

    @property
    def evaluations(self) -> Path:
        return self.output / "evaluations.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "output.log"

    def check(self) -> None:
        """Raises `UserError` for a pipe or a device in a file's place: opening it may never end."""
        logs = (self.log, self.metrics, self.former_metrics, self.evaluations)
        for file in (self.recipe, *logs):
            if file.exists() and not file.is_file():
                raise UserError(f"{file} is a folder, a pipe or a device; remove it")

    def lock(self) -> FileLock:
        """The lock of whoever runs it. The kernel releases it when that process ends, however.

        Acquiring it raises `filelock.Timeout` if another process has it, and `OSError` on a file
        system that has no locks.
        """
        return FileLock(self.path / "lock", timeout=0, fallback_to_soft=False)

    def description(self) -> Description | None:
        """Which run it is; None if the folder does not say."""
        return _read(self.path / DESCRIPTION_FILE, DESCRIPTION)

    def write_description(self, description: Description) -> None:
        _write_json(self.path / DESCRIPTION_FILE, asdict(description))

    def result(self) -> Result | None:
        """How it ended; None if it has not."""
        written = _read(self.path / RESULT_FILE, RESULT)
        return None if written is None else written.result()

    def write_result(self, result: Result) -> None:
        _write_json(self.path / RESULT_FILE, result.content())

    def forget_result(self) -> None:
        (self.path / RESULT_FILE).unlink(missing_ok=True)

    def steps(self) -> list[MetricsLine]:
        """What was logged of its steps, of a step that it did twice the last at the end.

        Raises `UserError` that names the first line that is damaged.
        """
        return [*read_metrics(self.former_metrics), *read_metrics(self.metrics)]


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """The folder of a study."""

    path: Path

    @property
    def remembered(self) -> Path:
        return self.path / "remembered"

    @property
    def report(self) -> Path:
        return self.path / "report"

    @property
    def record(self) -> Path:
        return self.path / "record"

    def run(self, name: str) -> RunFolder:
        return RunFolder(self.path / "runs" / name)

    def plan(self) -> StudyPlan | None:
        """The study as it was last called; None if there is none in the folder."""
        return _read(self.path / PLAN_FILE, PLAN)

    def write_plan(self, plan: StudyPlan) -> None:
        _write_json(self.path / PLAN_FILE, asdict(plan))


def file_name(label: str) -> str:
    """A label as a part of a file's name: letters, digits and `.+=-`, and `_` for what else is
    in it."""
    plain = unicodedata.normalize("NFKD", label)  # ¼ becomes 1, a sign, 4
    return re.sub(r"[^\w.+=-]+", "_", plain, flags=re.ASCII)[:NAME_LENGTH]


def _read(file: Path, kind: TypeAdapter[Record]) -> Record | None:
    """What a file says; None if it is not there. Raises `UserError` naming the file and the field
    if it is not of that kind."""
    if not file.exists():
        return None
    try:
        return record(parse_json(read_text(file)), kind)
    except ValueError as error:
        raise _damaged(file, str(error)) from error


def _damaged(file: Path, why: str) -> UserError:
    return UserError(
        f"{file} is damaged: {why}; delete it, and the study's own command makes it again (of "
        "result.json, with the run)"
    )


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Replaces the file by an object, whole."""
    write_whole(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
