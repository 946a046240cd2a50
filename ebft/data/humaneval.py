"""Data source `humaneval`: rows in HumanEval's format, programs to complete with unit tests."""

from __future__ import annotations

from pydantic import Field

from ebft.data.benchmark_rows import BenchmarkOptions
from ebft.data.evalplus import with_numpy
from ebft.parts.splits import Example, Splits

FIELDS = {
    "task_id": str, "prompt": str, "entry_point": str, "canonical_solution": str, "test": str,
}  # fmt: skip
STOP = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(", "\n```")
"""A body ends before the next unindented line (Chen et al. 2021, section 2.3), or a fence."""


class HumanEval(BenchmarkOptions):
    """Signature and docstring → body, tested by `check(entry_point)`. All rows are held out.

    It is for an evaluation set (`evaluation.sets`), not for training. HumanEval+ (Liu et al. 2023,
    EvalPlus) has the same problems with about 80 times as many tests.
    """

    plus: bool = Field(
        False, description="the rows are HumanEval+'s, e.g. of dataset evalplus/humanevalplus"
    )

    def __call__(self) -> Splits:
        """Raises `UserError` naming the file or the data set, and the row."""
        return Splits(
            train=(),
            held_out=[
                Example(
                    name=row["task_id"],
                    prompt=row["prompt"],
                    completion=row["canonical_solution"],
                    check=self._check(f"{row['test']}\n\ncheck({row['entry_point']})"),
                    stop=STOP,
                )
                for row in self.rows(FIELDS, split="test")
            ],
        )

    def _check(self, tests: str) -> str:
        return with_numpy(tests) if self.plus else tests
