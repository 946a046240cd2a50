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
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from ebft.errors import UserError
from ebft.files import write_whole
from ebft.study.contents import Description, Result, StudyPlan

RECIPE = "recipe.yaml"
PLAN = "plan.json"
DESCRIPTION = "run.json"
RESULT = "result.json"

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
    def steps(self) -> Path:
        return self.output / "logs" / "steps.jsonl"

    @property
    def evaluations(self) -> Path:
        return self.output / "evaluations.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "output.log"

    def lock(self) -> FileLock:
        """The lock of whoever runs it. The kernel releases it when that process ends, however.

        Acquiring it raises `filelock.Timeout` if another process has it, and `OSError` on a file
        system that has no locks.
        """
        return FileLock(self.path / "lock", timeout=0, fallback_to_soft=False)

    def description(self) -> Description | None:
        """Which run it is; None if the folder does not say."""
        return _read(self.path / DESCRIPTION, Description.of)

    def write_description(self, description: Description) -> None:
        _write_json(self.path / DESCRIPTION, asdict(description))

    def result(self) -> Result | None:
        """How it ended; None if it has not."""
        return _read(self.path / RESULT, Result.of)

    def write_result(self, result: Result) -> None:
        _write_json(self.path / RESULT, result.content())

    def forget_result(self) -> None:
        (self.path / RESULT).unlink(missing_ok=True)


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

    def run(self, name: str) -> RunFolder:
        return RunFolder(self.path / "runs" / name)

    def plan(self) -> StudyPlan | None:
        """The study as it was last called; None if there is none in the folder."""
        return _read(self.path / PLAN, StudyPlan.of)

    def write_plan(self, plan: StudyPlan) -> None:
        _write_json(self.path / PLAN, asdict(plan))


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; a last line that was cut off does not count."""
    if not file.exists():
        return []
    whole, _, _ = file.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.splitlines() if line]


def _read(file: Path, record: Callable[[Mapping[str, Any]], Record]) -> Record | None:
    return record(_read_json(file)) if file.exists() else None


def _read_json(file: Path) -> dict[str, Any]:
    """The object in a file. Raises `UserError` naming the file if there is none in it."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _damaged(file, str(error)) from error
    if not isinstance(content, dict):
        raise _damaged(file, f"it holds a {type(content).__name__}")
    return content


def _damaged(file: Path, why: str) -> UserError:
    return UserError(
        f"{file} is damaged: {why}; delete it, and the study's own command makes it again (of "
        "result.json, with the run)"
    )


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Replaces the file by an object, whole."""
    write_whole(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
