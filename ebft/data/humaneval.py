"""Data source `humaneval`: a file in HumanEval's format, programs to complete with unit tests."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from ebft.data.jsonl import read_rows
from ebft.parts.part import Part
from ebft.parts.splits import Example, Splits

FIELDS = {
    "task_id": str, "prompt": str, "entry_point": str, "canonical_solution": str, "test": str,
}  # fmt: skip
STOP = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(", "\n```")
"""A body ends before the next unindented line (Chen et al. 2021, section 2.3), or a fence."""


class HumanEval(Part):
    """Signature and docstring → body, tested by `check(entry_point)`. All rows are held out.

    It is for an evaluation set (`evaluation.sets`), not for training.
    """

    path: Path = Field(description="a .jsonl file, .gz too, e.g. HumanEval.jsonl.gz")

    def __call__(self) -> Splits:
        """Raises `UserError` naming the file and the row."""
        rows = read_rows(self.path, "data.path", FIELDS)
        return Splits(
            train=(),
            held_out=[
                Example(
                    name=row["task_id"],
                    prompt=row["prompt"],
                    completion=row["canonical_solution"],
                    check=f"{row['test']}\n\ncheck({row['entry_point']})",
                    stop=STOP,
                )
                for row in rows
            ],
        )
