"""The metric logger of a study's runs: one JSON object a line, for progress and for the report."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path


class StepLog:
    """Appends `{"step": …, name: value, …}` to a file, line by line."""

    def __init__(self, file: str) -> None:
        path = Path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        _cut_half_a_line(path)
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def log_dict(self, payload: Mapping[str, float], step: int) -> None:
        self._file.write(json.dumps({"step": step, **payload}) + "\n")

    def close(self) -> None:
        self._file.close()


def _cut_half_a_line(path: Path) -> None:
    """Takes off what a full disk or a crash has left of a line: more would be written behind it."""
    if path.exists():
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)
