"""Data source `mbpp`: rows in MBPP's format, functions from a sentence and tests."""

from __future__ import annotations

from typing import Any

from pydantic import Field, NonNegativeInt

from ebft.data.benchmark_rows import BenchmarkOptions
from ebft.data.evalplus import with_numpy
from ebft.data.split import apart_from
from ebft.parts.splits import Example, Splits

FIELDS = {"task_id": int, "text": str, "code": str, "test_list": list, "test_setup_code": str}
PLUS = {
    "task_id": int, "prompt": str, "code": str, "test_list": list, "test_imports": list,
    "test": str,
}  # fmt: skip
"""MBPP+'s."""
TRAIN, TEST = range(601, 975), range(11, 511)
"""MBPP's own splits by `task_id` (Austin et al. 2021, section 2.1)."""
STOP = ("\nassert ", '\n"""', "\nprint(", "\n#")
"""A program ends before its tests and before the next task. It may be in fences, which verifiers of
programs read."""


class MBPP(BenchmarkOptions):
    """A docstring with the task and some of its tests → the function, tested by all tests.

    Tasks 601 to 974 are for training and 11 to 510 are held out, the splits of MBPP's authors. The
    other tasks, for prompting and validation, are not read. MBPP+ (Liu et al. 2023, EvalPlus) has
    378 of all tasks with about 35 times as many tests, and all of them are held out.
    """

    tests_shown: NonNegativeInt = Field(
        3, description="tests in the prompt: without a test the function has no name"
    )
    plus: bool = Field(False, description="the rows are MBPP+'s, e.g. of dataset evalplus/mbppplus")

    def __call__(self) -> Splits:
        """Raises `UserError` naming the file or the data set, and the row."""
        if self.plus:
            return Splits((), [self._plus(row) for row in self.rows(PLUS, split="test")])
        rows = self.rows(FIELDS, split="train+test")
        train, held_out = (
            [self._example(row) for row in rows if row["task_id"] in split]
            for split in (TRAIN, TEST)
        )
        if not train:
            return Splits((), held_out)
        return apart_from(train, held_out, key=f"data.path = {self.path or self.dataset}")

    def _example(self, row: dict[str, Any]) -> Example:
        return self._of(row, row["text"], "\n".join([row["test_setup_code"], *row["test_list"]]))

    def _plus(self, row: dict[str, Any]) -> Example:
        tests = "\n".join([*row["test_imports"], row["test"]])  # which has those of `test_list`
        return self._of(row, row["prompt"], with_numpy(tests))

    def _of(self, row: dict[str, Any], task: str, check: str) -> Example:
        shown = "\n".join([task.strip(), *row["test_list"][: self.tests_shown]])
        return Example(
            name=f"MBPP/{row['task_id']}",
            prompt=f'"""\n{shown}\n"""\n',
            completion=row["code"].replace("\r\n", "\n"),
            check=check,
            stop=STOP,
        )
