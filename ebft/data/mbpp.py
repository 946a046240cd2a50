"""Data source `mbpp`: a file in MBPP's format, functions from a sentence and tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, NonNegativeInt

from ebft.data.jsonl import read_rows
from ebft.data.split import apart_from
from ebft.parts.part import Part
from ebft.parts.splits import Example, Splits

FIELDS = {"task_id": int, "text": str, "code": str, "test_list": list, "test_setup_code": str}
TRAIN, TEST = range(601, 975), range(11, 511)
"""MBPP's own splits by `task_id` (Austin et al. 2021, section 2.1)."""
STOP = ("\nassert ", '\n"""', "\nprint(", "\n#")
"""A program ends before its tests and before the next task. It may be in fences, which verifiers of
programs read."""


class MBPP(Part):
    """A docstring with the task and some of its tests → the function, tested by all tests.

    Tasks 601 to 974 are for training and 11 to 510 are held out, the splits of MBPP's authors. The
    other tasks, for prompting and validation, are not read.
    """

    path: Path = Field(description="a .jsonl file, .gz too, e.g. mbpp.jsonl")
    tests_shown: NonNegativeInt = Field(
        3, description="tests in the prompt: without a test the function has no name"
    )

    def __call__(self) -> Splits:
        """Raises `UserError` naming the file and the row."""
        rows = read_rows(self.path, "data.path", FIELDS)
        train, held_out = (
            [self._example(row) for row in rows if row["task_id"] in split]
            for split in (TRAIN, TEST)
        )
        if not train:
            return Splits((), held_out)
        return apart_from(train, held_out, key=f"data.path = {self.path}")

    def _example(self, row: dict[str, Any]) -> Example:
        shown = "\n".join([row["text"].strip(), *row["test_list"][: self.tests_shown]])
        return Example(
            name=f"MBPP/{row['task_id']}",
            prompt=f'"""\n{shown}\n"""\n',
            completion=row["code"].replace("\r\n", "\n"),
            check="\n".join([row["test_setup_code"], *row["test_list"]]),
            stop=STOP,
        )
