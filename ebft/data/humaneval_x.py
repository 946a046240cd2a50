"""Data source `humaneval_x`: HumanEval's problems in other languages, with reference solutions."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ebft.data.jsonl import read_rows
from ebft.parts.part import Part
from ebft.parts.splits import Example, Splits
from ebft.verifiers.functions import LANGUAGE

FIELDS = {"task_id": str, "prompt": str, "declaration": str, "canonical_solution": str, "test": str}
STOP: dict[str, tuple[str, ...]] = {
    "cpp": ("\nint main", "\n#include", "\n//", "\n/*"),
    "java": ("\npublic class", "\nimport "),
    "js": ("\nconsole.log", "\n//", "\n/*"),
    "rs": ("\nfn main", "\n#[", "\n//", "\n/*"),
}
FENCE = "\n```"


class HumanEvalX(Part):
    """Signature and comment → the rest of the program, tested in its own language. All rows are
    held out.

    The verifier is `LANGUAGE_tests`. Unlike in MultiPL-E, a completion closes its own braces.
    Source: Zheng et al. 2023, CodeGeeX.
    """

    path: Path = Field(description="a .jsonl file, .gz too, e.g. humaneval_java.jsonl.gz")
    language: Literal["cpp", "java", "js", "rs"] = Field(description="its language")

    def __call__(self) -> Splits:
        """Raises `UserError` naming the file and the row."""
        rows = read_rows(self.path, "data.path", FIELDS)
        return Splits(train=(), held_out=[self._example(row) for row in rows])

    def _example(self, row: dict[str, Any]) -> Example:
        # Rust's prompts are only comments: the signature is in the declaration.
        rest = row["declaration"] if self.language == "rs" else ""
        return Example(
            name=row["task_id"],
            prompt=row["prompt"] + rest,
            completion=row["canonical_solution"],
            check=f"{LANGUAGE}{self.language}\n{row['test']}",
            stop=(*STOP[self.language], FENCE),
        )
