"""Data source `hub`: a data set of the Hugging Face hub."""

from __future__ import annotations

import logging
from typing import Any

from pydantic import Field, PositiveInt

from ebft.data.rows import RowOptions, Rows
from ebft.data.split import apart_from, split
from ebft.data.tools import existing
from ebft.errors import UserError, first_line
from ebft.parts.splits import Splits

# It logs a traceback before it raises; the `UserError` here already says what is wrong.
logging.getLogger("datasets.packaged_modules.json.json").setLevel(logging.CRITICAL)


class Hub(RowOptions):
    """Rows of a hub data set, downloaded once and then read row by row from the cache of
    `datasets`, so it may be larger than memory."""

    dataset: str = Field(description="the data set's id, owner/name")
    subset: str | None = Field(None, description="its configuration, if it has several")
    split: str = Field("train", description="which of its splits to read")
    revision: str | None = Field(None, description="branch, tag or commit of the data set")
    held_out: float = Field(0.1, gt=0, lt=1, description="fraction of the rows to hold out")
    held_out_split: str | None = Field(
        None, description="a split to hold out, used instead of `held_out`"
    )
    held_out_dataset: str | None = Field(
        None, description="the data set that has `held_out_split`; null: the same"
    )
    limit: PositiveInt | None = Field(None, description="read only this many rows, the first")

    def __call__(self) -> Splits:
        """Raises `UserError` naming the data set if it cannot be loaded."""
        examples = self._load(self.dataset, self.split, self.subset, self.revision)
        if self.held_out_split is None:
            return split(examples, self.held_out, key=f"data.dataset = {self.dataset}")
        if self.held_out_dataset is None:
            held_out = self._load(self.dataset, self.held_out_split, self.subset, self.revision)
        else:
            held_out = self._load(self.held_out_dataset, self.held_out_split)
        return apart_from(examples, held_out, key=f"data.dataset = {self.dataset}")

    def _load(
        self, dataset: str, split: str, subset: str | None = None, revision: str | None = None
    ) -> Rows:
        from datasets import load_dataset

        wanted = split if self.limit is None else f"{split}[:{self.limit}]"
        try:
            rows: Any = load_dataset(dataset, subset, split=wanted, revision=revision)
        except Exception as error:  # the hub's client raises many types of errors
            raise UserError(
                f"data: {dataset}, split {split}: cannot be loaded ({first_line(error)}); check "
                "the names of the data set, its subset and its split, and the network"
            ) from error
        if len(rows) == 0:
            raise UserError(f"data: {dataset}, split {split}: has no rows")
        source = f"{dataset}/{split}"
        columns = existing(rows.column_names, self.columns(), source)
        # Pictures or sounds in another column are not decoded.
        return Rows(rows.select_columns(sorted(set(columns.values()))), columns, source)
