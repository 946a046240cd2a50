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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from ebft.errors import UserError
from ebft.files import write_whole

DONE = "done"
FAILED = "failed"
RECIPE = "recipe.yaml"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run."""

    path: Path

    @property
    def study(self) -> StudyFolder:
        return StudyFolder(self.path.parent.parent)

    @property
    def description(self) -> Path:
        return self.path / "run.json"

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

    def result(self) -> dict[str, Any] | None:
        """How it ended; None if it has not."""
        file = self.path / "result.json"
        return read_json(file) if file.exists() else None

    def write_result(self, status: str, **more: Any) -> None:
        write_json(self.path / "result.json", {"status": status, **more})

    def forget_result(self) -> None:
        (self.path / "result.json").unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """The folder of a study."""

    path: Path

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def remembered(self) -> Path:
        return self.path / "remembered"

    @property
    def report(self) -> Path:
        return self.path / "report"

    def run(self, name: str) -> RunFolder:
        return RunFolder(self.path / "runs" / name)


def read_json(file: Path) -> dict[str, Any]:
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


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Replaces the file by an object, whole."""
    write_whole(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; a last line that was cut off does not count."""
    if not file.exists():
        return []
    whole, _, _ = file.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.splitlines() if line]
