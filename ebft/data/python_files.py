"""Data source `python_files`: raw code, by default the running interpreter's standard library."""

from __future__ import annotations

import logging
import sysconfig
from pathlib import Path

from pydantic import Field

from ebft.data.split import split
from ebft.errors import UserError
from ebft.interfaces import Example, Splits
from ebft.parts import Part

SKIPPED = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "pydoc_data"}
)
"""Folders of the standard library that are left out: installed packages, test suites, and tables
and texts that only look like code."""

log = logging.getLogger("ebft")


class PythonFiles(Part):
    """Every .py file under a folder is one text (the paper's unstructured code).

    Whole files are held out, so no held-out text has a neighbour from its own file in train.
    """

    path: Path | None = Field(None, description="a folder; null: the standard library's sources")
    held_out: float = Field(0.1, gt=0, lt=1, description="fraction of the files to hold out")

    def __call__(self) -> Splits:
        """Raises `UserError` naming `data.path` if there is nothing to read."""
        root = self.path if self.path is not None else Path(sysconfig.get_path("stdlib"))
        if not root.is_dir():
            raise UserError(f"data.path = {root}: no such folder; give one that has .py files")
        skipped = SKIPPED if self.path is None else frozenset()
        examples, unreadable = [], []
        for file in sorted(root.rglob("*.py")):
            name = file.relative_to(root)
            if skipped.intersection(name.parts):
                continue
            try:
                text = file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                unreadable.append(name.as_posix())
                continue
            if text.strip():
                examples.append(Example(name.as_posix(), text))
        if unreadable:
            log.warning("%d files cannot be read as UTF-8, e.g. %s", len(unreadable), unreadable[0])
        if not examples:
            raise UserError(f"data.path = {root}: no .py file with text in it; give another folder")
        return split(examples, self.held_out, key=f"data.path = {root}")
