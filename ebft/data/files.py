"""Data source `files`: rows of a JSONL, JSON, Parquet or CSV file."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field

from ebft.data.formats import READERS, format_of
from ebft.data.jsonl import check_file
from ebft.data.rows import RowOptions, Rows
from ebft.data.split import apart_from, split
from ebft.data.stored import stored_texts
from ebft.data.values import safe_name
from ebft.errors import UserError
from ebft.parts.splits import Splits


class Files(RowOptions):
    """Rows with a completion and, unless they are raw text, a prompt; or with a conversation.

    Texts are read exactly as in the file: `00700` in a CSV file is five characters, not a number.
    Columns that no option names are ignored. The texts are read once for each content of the file,
    and then row by row from the cache of `datasets`. The file may be larger than memory, unless it
    is a list in a .json file.
    """

    path: Path = Field(description="a .jsonl, .json, .parquet or .csv file, .gz too")
    held_out: float = Field(0.1, gt=0, lt=1, description="fraction of the rows to hold out")
    held_out_path: Path | None = Field(
        None,
        description="a file of held-out rows, used instead of `held_out`; to evaluate all "
        "rows of a file, the same as `path`",
    )

    def __call__(self) -> Splits:
        """Raises `UserError` naming the file and, where there is one, the row."""
        examples = self._read(self.path, "data.path")
        if self.held_out_path is None:
            return split(examples, self.held_out, key=f"data.path = {self.path}")
        held_out = self._read(self.held_out_path, "data.held_out_path")
        if self.held_out_path == self.path:  # an evaluation of all rows
            return Splits(train=[], held_out=held_out)
        return apart_from(examples, held_out, key=f"data.path = {self.path}")

    def _read(self, path: Path, key: str) -> Rows:
        where = f"{key} = {path}"
        if os.path.isdir(path):
            raise UserError(
                f"{where}: is a folder, and this reads one file; for a folder of .py files "
                "set data=python_files"
            )
        check_file(path, where)
        if format_of(path) is None:
            raise UserError(f"{where}: ends in none of {', '.join(READERS)}")
        if path.stat().st_size == 0:
            raise UserError(f"{where}: the file is empty")
        columns = self.columns()
        return Rows(stored_texts(path, key, columns), None, safe_name(path.name))
