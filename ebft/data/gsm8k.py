"""Data source `gsm8k`: files in GSM8K's format, word problems whose answer is a number."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field

from ebft.data.jsonl import read_rows
from ebft.data.split import apart_from
from ebft.data.values import safe_name
from ebft.errors import UserError
from ebft.parts.part import Part
from ebft.parts.splits import Example, Splits

FIELDS = {"question": str, "answer": str}
CALCULATOR = re.compile(r"<<.*?>>")


class GSM8K(Part):
    """Question → reasoning, `####` and the answer. `check` has only the answer.

    The verifier `final_answer` compares it with the final number of a rollout.
    """

    path: Path = Field(description="the test file, .jsonl or .jsonl.gz: all of it is held out")
    train_path: Path | None = Field(None, description="the train file; null: there is none")
    calculator: bool = Field(
        False, description="keep the annotations for a calculator, <<48/2=24>>, in the reasoning"
    )

    def __call__(self) -> Splits:
        """Raises `UserError` naming the file and the row."""
        held_out = self._read(self.path, "data.path")
        if self.train_path is None:
            return Splits((), held_out)
        train = self._read(self.train_path, "data.train_path")
        return apart_from(train, held_out, key=f"data.train_path = {self.train_path}")

    def _read(self, path: Path, key: str) -> list[Example]:
        examples, name = [], safe_name(path.name)
        for number, row in enumerate(read_rows(path, key, FIELDS), 1):
            reasoning, marked, answer = row["answer"].rpartition("####")
            if not marked:
                raise UserError(f"{key} = {path}: row {number}: the answer has no ####")
            if not self.calculator:
                reasoning = CALCULATOR.sub("", reasoning)
            examples.append(
                Example(
                    name=f"{name}:{number}",
                    prompt=f"Question: {row['question'].strip()}\nAnswer:",
                    completion=f" {reasoning.strip()}\n#### {answer.strip()}",
                    check=answer.strip(),
                    stop=("\nQuestion:",),
                )
            )
        return examples
