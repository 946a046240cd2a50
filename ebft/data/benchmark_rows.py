"""Rows of a benchmark, from a file or from a data set of the hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from ebft.data.jsonl import checked_row, read_rows
from ebft.errors import UserError, first_line
from ebft.parts.part import Part


class BenchmarkOptions(Part):
    """Where the rows of a benchmark are."""

    path: Path | None = Field(None, description="a .jsonl file of its rows, .gz too")
    dataset: str | None = Field(None, description="the hub's data set that has them, owner/name")

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if (self.path is None) == (self.dataset is None):
            raise ValueError("give path, a file of its rows, or dataset, the hub's, and not both")
        return self

    def rows(self, fields: Mapping[str, type], *, split: str) -> list[dict[str, Any]]:
        """Returns the rows of the file, or of a split of the data set. Each has `fields` of these
        types. Raises `UserError` naming the file or the data set, and the row."""
        if self.path is not None:
            return read_rows(self.path, "data.path", fields)
        assert self.dataset is not None, "validated"
        where = f"data.dataset = {self.dataset}"
        return [
            checked_row(dict(row), fields, f"{where}: row {number}")
            for number, row in enumerate(rows_of_hub(self.dataset, split=split), 1)
        ]


def rows_of_hub(
    dataset: str, subset: str | None = None, *, split: str
) -> Iterable[Mapping[str, Any]]:
    """Returns the rows of a split. Raises `UserError` naming the data set if it cannot be
    loaded."""
    from datasets import load_dataset

    try:
        rows: Iterable[Mapping[str, Any]] = load_dataset(dataset, subset, split=split)
    except Exception as error:  # the hub's client raises many types of errors
        named = dataset if subset is None else f"{dataset}, subset {subset}"
        raise UserError(
            f"data: {named}, split {split}: cannot be loaded ({first_line(error)}); check the "
            "network, or set data.path to a file of its rows"
        ) from error
    return rows
