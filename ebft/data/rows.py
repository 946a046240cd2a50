"""From the rows of a data set to examples: the columns of texts and conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self, overload

import numpy as np
from jaxtyping import Int
from pydantic import Field, model_validator

from ebft.data.messages import MESSAGES, check_row, from_text
from ebft.data.mistakes import Mistakes
from ebft.data.tools import TOOLS
from ebft.data.values import listed
from ebft.errors import UserError
from ebft.parts.part import Part
from ebft.parts.splits import Example

Indices = Int[np.ndarray, " _"]


class RowOptions(Part):
    """Options that data sources of rows share: the columns that are read."""

    prompt: str | None = Field(
        None, description="column of the prompt; null: the rows are raw text"
    )
    completion: str = Field("completion", description="column of the completion, or of raw text")
    messages: str | None = Field(
        None,
        description="column of conversations, in place of prompt and completion: lists of messages "
        "with role and content, to which the tokenizer's chat template is applied",
    )
    tools: str | None = Field(
        TOOLS,
        description="column of the functions that the chat template describes to the model: a list "
        "of JSON schemas, or its JSON text; rows may lack `tools`. null: it is not read",
    )
    check: str | None = Field(
        None, description="column that a verifiable reward checks rollouts with, e.g. unit tests"
    )

    def columns(self) -> dict[str, str]:
        """Returns the columns to read, by option. Raw text has no tools."""
        named: dict[str, str | None] = {"prompt": self.prompt, "completion": self.completion}
        if self.messages is not None:
            named = {MESSAGES: self.messages}
        if self.messages is not None or self.prompt is not None:
            named[TOOLS] = self.tools
        named["check"] = self.check
        return {option: column for option, column in named.items() if column is not None}

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        own = type(self).model_fields["completion"].default
        named = self.tools not in (None, TOOLS)
        if named and self.messages is None and self.prompt is None:
            raise ValueError(
                f"tools = {self.tools}: are described in conversations, and the rows are raw text; "
                "leave it out, or set messages"
            )
        if self.messages is not None and (self.prompt is not None or self.completion != own):
            raise ValueError(
                f"messages = {self.messages}: is the column of whole conversations, so there is no "
                "prompt and no completion; leave these out"
            )
        return self


class Rows(Sequence[Example]):
    """Rows of a `datasets.Dataset` as examples, read from its memory-mapped file when accessed.

    Only the row numbers are in memory, 8 bytes each. An example is named `source:row`, counted
    from 1. `columns` maps options to columns; None: the data set is that of `stored_texts`. Reading
    raises `UserError` naming the column, the row and the existing columns.
    """

    def __init__(
        self,
        dataset: Any,
        columns: Mapping[str, str] | None,
        source: str,
        numbers: Indices | None = None,
    ) -> None:
        self._dataset, self._columns, self._source = dataset, columns, source
        self._numbers = np.arange(len(dataset)) if numbers is None else numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, place: int) -> Example: ...

    @overload
    def __getitem__(self, place: slice) -> list[Example]: ...

    def __getitem__(self, place: int | slice) -> Example | list[Example]:
        if isinstance(place, slice):
            return self._read(self._numbers[place])
        return self._read(self._numbers[place : place + 1 or None])[0]

    def pick(self, places: Indices) -> Rows:
        """Returns the rows at these places."""
        return Rows(self._dataset, self._columns, self._source, self._numbers[places])

    def _read(self, numbers: Indices) -> list[Example]:
        if len(numbers) == 0:
            return []
        try:
            batch = self._dataset[_as_slice(numbers)]
        except UnicodeDecodeError as error:
            raise UserError(
                f"data: {self._source}, among rows {numbers.min() + 1} to {numbers.max() + 1}: a "
                f"text is not UTF-8 ({error.reason}); repair it, or leave the row out"
            ) from error
        columns = {name: name for name in batch} if self._columns is None else self._columns
        places = {
            option: f"data.{option} = {column}: {self._source}"
            for option, column in columns.items()
        }
        for option, column in columns.items():
            if column not in batch:
                raise UserError(f"{places[option]} has no such column; there are: {listed(batch)}")
        examples = []
        with Mistakes() as mistakes:
            for i, number in enumerate(numbers.tolist()):
                row = {option: batch[column][i] for option, column in columns.items()}
                if self._columns is not None:
                    at = {option: f"{place}, row {number + 1}" for option, place in places.items()}
                    try:
                        row = check_row(row, at)
                    except UserError as error:
                        mistakes.add(error)
                        continue
                examples.append(_example(f"{self._source}:{number + 1}", row))
        return examples


def _example(name: str, texts: Mapping[str, str]) -> Example:
    if conversation := texts[MESSAGES]:
        messages, tools = from_text(conversation)
        return Example.of_messages(name, messages, check=texts.get("check", ""), tools=tools)
    completion, prompt, check = (
        texts.get(option, "") for option in ("completion", "prompt", "check")
    )
    return Example(name, completion, prompt, check)


def pick(examples: Sequence[Example], places: Indices) -> Sequence[Example]:
    """Returns the examples at these places; rows of a data set stay on disk."""
    if isinstance(examples, Rows):
        return examples.pick(places)
    return [examples[place] for place in places.tolist()]


def _as_slice(numbers: Indices) -> slice | list[int]:
    # A slice is read at once; a list of rows is read one by one.
    first, last = int(numbers[0]), int(numbers[-1])
    if last - first + 1 == len(numbers) and bool((np.diff(numbers) == 1).all()):
        return slice(first, last + 1)
    return numbers.tolist()  # type: ignore[no-any-return]
