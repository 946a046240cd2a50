"""Data source `hub`: a data set of the Hugging Face hub."""

from __future__ import annotations

from typing import Any

from datasets import load_dataset
from pydantic import Field, PositiveInt

from ebft.data.rows import rows_to_examples
from ebft.data.split import split
from ebft.errors import UserError
from ebft.interfaces import Splits
from ebft.parts import Part


class Hub(Part):
    """Rows of a hub data set, downloaded once and then read from the cache of `datasets`."""

    dataset: str = Field(description="the data set's id, owner/name")
    subset: str | None = Field(None, description="its configuration, if it has several")
    split: str = Field("train", description="which of its splits to read")
    prompt: str | None = Field(
        None, description="column of the prompt; null: the rows are raw text"
    )
    completion: str = Field(description="column of the completion, or of raw text")
    check: str | None = Field(
        None, description="column of what a verifiable reward checks rollouts with, e.g. unit tests"
    )
    held_out: float = Field(0.1, gt=0, lt=1, description="fraction of the rows to hold out")
    limit: PositiveInt | None = Field(None, description="read only the first so many rows")

    def __call__(self) -> Splits:
        """Raises `UserError` naming the data set if it cannot be had."""
        wanted = self.split if self.limit is None else f"{self.split}[:{self.limit}]"
        try:
            rows: Any = load_dataset(self.dataset, self.subset, split=wanted)
        except Exception as error:  # the hub's client has many kinds of failure, all of them final
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"data.dataset = {self.dataset}: cannot be loaded ({reason}); check data.dataset, "
                "data.subset and data.split, and the network"
            ) from error
        examples = rows_to_examples(
            rows,
            prompt=self.prompt,
            completion=self.completion,
            check=self.check,
            source=self.dataset,
        )
        return split(examples, self.held_out, key=f"data.dataset = {self.dataset}")
