"""Data source `multipl_e`: HumanEval's and MBPP's problems in other programming languages."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ebft.data.benchmark_rows import rows_of_hub
from ebft.data.jsonl import UNREADABLE, check_file, objects_of_json, unreadable
from ebft.data.values import check_text, listed, quoted
from ebft.errors import UserError
from ebft.parts.part import Part
from ebft.parts.splits import Example, Splits
from ebft.verifiers.functions import LANGUAGE

Name = Literal["js", "java", "cpp", "rs", "go", "pl", "sh", "lua"]
"""MultiPL-E's short names, the keys of `ebft.sandbox.LANGUAGES`."""
SPELLED = {"go_test.go": "go"}
"""Languages that its files name differently."""
FENCE = "\n```"


class MultiPLE(Part):
    """A prompt with a signature → the body, tested in its own language. All rows are held out.

    The verifier is `LANGUAGE_tests`, such as `java_tests`, and completions end before the row's own
    stop texts, or a fence. The benchmark has no reference solutions, and is for evaluation only.
    Source: Cassano et al. 2023, MultiPL-E.
    """

    language: Name = Field(description="its language, by MultiPL-E's short name")
    path: Path | None = Field(
        None, description="a file of its rows, .json or .jsonl, .gz too; null: from the hub"
    )
    dataset: str = Field("nuprl/MultiPL-E", description="the data set's id, read without `path`")
    problems: Literal["humaneval", "mbpp"] = Field("humaneval", description="whose problems")

    @model_validator(mode="after")
    def _named_like_its_language(self) -> Self:
        if self.path is not None and not self.path.name.endswith((".json", ".jsonl", ".gz")):
            raise ValueError(f"path = {self.path}: is no .json or .jsonl file, nor one with .gz")
        return self

    def __call__(self) -> Splits:
        """Raises `UserError` naming the file and the row."""
        if self.path is None:
            where, rows = f"data: {self.dataset}", self._of_hub()
        else:
            where, rows = f"data.path = {self.path}", self._of_file(self.path)
        held_out = [
            self._example(row, f"{where}: row {number}") for number, row in enumerate(rows, 1)
        ]
        if not held_out:
            raise UserError(f"{where}: has no rows")
        return Splits(train=(), held_out=held_out)

    def _of_file(self, path: Path) -> Iterator[Mapping[str, Any]]:
        where = f"data.path = {path}"
        check_file(path, where)
        try:
            yield from objects_of_json(path, where)
        except UNREADABLE as error:
            raise unreadable(where, error) from error

    def _of_hub(self) -> Iterable[Mapping[str, Any]]:
        return rows_of_hub(self.dataset, f"{self.problems}-{self.language}", split="test")

    def _example(self, row: Mapping[str, Any], where: str) -> Example:
        for name in ("name", "prompt", "tests", "language"):
            if name not in row:
                raise UserError(f"{where} has no {name!r}; there are: {listed(row)}")
            check_text(row[name], f"{where}, {name}:")
        spelled = row["language"]
        if SPELLED.get(spelled, spelled) != self.language:
            raise UserError(
                f"{where}, language: has {quoted(spelled)} there, and data.language = "
                f"{self.language}; give the file of that language"
            )
        return Example(
            name=row["name"],
            prompt=row["prompt"],
            completion="\n",  # there is no reference, and a prompt needs a completion
            check=f"{LANGUAGE}{self.language}\n{row['tests']}",
            stop=(*_texts(row.get("stop_tokens", []), f"{where}, stop_tokens:"), FENCE),
        )


def _texts(value: Any, where: str) -> list[str]:
    """Returns a list of texts, which older files have as the text of a Python list."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError) as error:
            raise UserError(f"{where} has {quoted(value)} there, which is no list") from error
    if not isinstance(value, list):
        raise UserError(f"{where} has {quoted(value)} there; this is a list of texts")
    return [text for one in value if (text := check_text(one, where))]
