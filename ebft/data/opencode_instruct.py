"""Data source `opencode_instruct`: questions about code, answers, and unit tests of the answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self, overload

from pydantic import Field, PositiveInt, model_validator

from ebft.data.files import Files
from ebft.data.hub import Hub
from ebft.data.values import quoted
from ebft.errors import UserError
from ebft.parts.part import Part
from ebft.parts.splits import Example, Splits


class OpenCodeInstruct(Part):
    """Rows of nvidia/OpenCodeInstruct: question → answer, with the row's unit tests as its check.

    The tests are for the verifier `program_tests`; methods without a verifier train on the same
    rows. Source: Ahmad et al. 2025, and the data set's card, whose columns are the defaults.
    """

    dataset: str | None = Field("nvidia/OpenCodeInstruct", description="the data set's id")
    path: Path | None = Field(
        None, description="a file of such rows (.jsonl, .parquet), used instead of `dataset`"
    )
    question: str = Field("input", description="column of the question")
    answer: str = Field("output", description="column of the answer")
    unit_tests: str = Field("unit_tests", description="column of the tests: a list in JSON")
    limit: PositiveInt | None = Field(
        100_000, description="read only this many rows of `dataset`, the first; null: all"
    )
    held_out: float = Field(0.01, gt=0, lt=1, description="fraction of the rows to hold out")
    template: str = Field("{question}\n", description="the prompt; {question} is the row's")

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if self.path is None and self.dataset is None:
            raise ValueError("dataset and path are null; give one of them")
        if "{question}" not in self.template:
            raise ValueError(f"template = {self.template!r}: has no {{question}}")
        return self

    def __call__(self) -> Splits:
        """Raises `UserError` naming the file or the data set, and the row."""
        columns = {"prompt": self.question, "completion": self.answer, "check": self.unit_tests}
        source: Files | Hub
        if self.path is not None:
            source = Files(path=self.path, held_out=self.held_out, **columns)
        else:
            assert self.dataset is not None, "validated"
            source = Hub(dataset=self.dataset, held_out=self.held_out, limit=self.limit, **columns)
        splits = source()
        return Splits(
            train=AsQuestions(splits.train, self.template),
            held_out=AsQuestions(splits.held_out, self.template),
        )


class AsQuestions(Sequence[Example]):
    """Examples with the template's prompt, and with their tests as a program. Rows that are on disk
    stay there: each is converted when it is read."""

    def __init__(self, examples: Sequence[Example], template: str) -> None:
        self._examples, self._template = examples, template

    def __len__(self) -> int:
        return len(self._examples)

    @overload
    def __getitem__(self, place: int) -> Example: ...

    @overload
    def __getitem__(self, place: slice) -> list[Example]: ...

    def __getitem__(self, place: int | slice) -> Example | list[Example]:
        if isinstance(place, slice):
            return [self._convert(example) for example in self._examples[place]]
        return self._convert(self._examples[place])

    def _convert(self, example: Example) -> Example:
        return replace(
            example,
            prompt=self._template.replace("{question}", example.prompt.strip()),
            check=program_of_tests(example.check, example.name),
        )


def program_of_tests(text: str, row: str) -> str:
    """Returns the tests of a row as one program: those of a JSON list one after the other, or the
    text itself if it is no list. Raises `UserError` naming the row for a list of other values."""
    try:
        tests = json.loads(text)
    except ValueError:
        return text
    if not isinstance(tests, list) or not all(isinstance(test, str) for test in tests):
        raise UserError(f"data: {row}: its unit tests are not a list of texts: {quoted(tests)}")
    return "\n".join(test.strip("\n") for test in tests)
