"""The folder of a study, and how its files are read and written.

plan.json              the study as it was last started: options, command, runs in order
runs/NAME/run.json     arm and seed of a run
runs/NAME/recipe.yaml  its resolved recipe
runs/NAME/output/      its output_dir
runs/NAME/output.log   its output
runs/NAME/result.json  how it ended; written when it is done or has failed
runs/NAME/lock         held by the process that runs it
remembered/            measurements before the first step, shared by runs that start alike
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

from ebft.checkpoints.folder import folder_name
from ebft.errors import UserError
from ebft.files import check_regular, parse_json, read_text, record, write_whole
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
"""The largest number of characters of a label in a file's name."""

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

    def trained(self, steps: int) -> Path:
        """The checkpoint after `steps`, the last ones."""
        return self.checkpoints / folder_name(steps)

    @property
    def metrics(self) -> Path:
        return self.output / "metrics.jsonl"

    @property
    def former_metrics(self) -> Path:
        """The log of runs of older versions, which did not write metrics.jsonl.

        It is still read for reports. A run that was resumed with a newer version has both files.
        """
        return self.output / "logs" / "steps.jsonl"

    @property
    def evaluations(self) -> Path:
        return self.output / "evaluations.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "output.log"

    def check(self) -> None:
        """Raises `UserError` for a file that is not a regular one, which may never end."""
        logs = (self.log, self.metrics, self.former_metrics, self.evaluations)
        for file in (self.recipe, *logs):
            if file.exists():
                try:
                    check_regular(file)
                except ValueError as error:
                    raise UserError(f"{file}: {error}; remove it") from error

    def lock(self) -> FileLock:
        """The lock of the process that runs it; the kernel releases it when the process ends.

        Acquiring it raises `filelock.Timeout` if another process holds it, and `OSError` on a file
        system without locks.
        """
        return FileLock(self.path / "lock", timeout=0, fallback_to_soft=False)

    def description(self) -> Description | None:
        """The arm and the seed of the run; None if there is no such file."""
        return _read(self.path / DESCRIPTION_FILE, DESCRIPTION)

    def write_description(self, description: Description) -> None:
        _write_json(self.path / DESCRIPTION_FILE, _said(description, "starts_from"))

    def result(self) -> Result | None:
        """How the run ended; None if it has not ended."""
        return _read(self.path / RESULT_FILE, RESULT)

    def write_result(self, result: Result) -> None:
        _write_json(self.path / RESULT_FILE, result.content())

    def delete_result(self) -> None:
        (self.path / RESULT_FILE).unlink(missing_ok=True)

    def steps(self) -> list[MetricsLine]:
        """The metrics of its steps. A step that was repeated after a resume comes again later.

        Raises `UserError` naming the first damaged line.
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
        """The study as it was last started; None if the folder has no plan."""
        return _read(self.path / PLAN_FILE, PLAN)

    def write_plan(self, plan: StudyPlan) -> None:
        _write_json(self.path / PLAN_FILE, _said(plan, "reported", "note"))


def file_name(label: str) -> str:
    """A label as part of a file's name: other characters than letters, digits and `.+=-` become
    `_`."""
    plain = unicodedata.normalize("NFKD", label)  # ¼ becomes 1, a sign, 4
    return re.sub(r"[^\w.+=-]+", "_", plain, flags=re.ASCII)[:NAME_LENGTH]


def _read(file: Path, kind: TypeAdapter[Record]) -> Record | None:
    """Reads a file; None if it does not exist. Raises `UserError` naming the file and the field if
    it is damaged."""
    if not file.exists():
        return None
    try:
        return record(parse_json(read_text(file)), kind)
    except ValueError as error:
        raise UserError(
            f"{file} is damaged: {error}; delete it and run the study's command, which writes it "
            "again (for result.json it repeats the run)"
        ) from error


def _said(record: Description | StudyPlan, *optional: str) -> dict[str, Any]:
    """The fields of a record; optional ones that are empty are left out, as in files of older
    versions."""
    fields = asdict(record)
    return {name: value for name, value in fields.items() if value or name not in optional}


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Replaces the file atomically."""
    write_whole(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
