"""Data source `files`: rows of a JSONL, JSON, Parquet or CSV file."""

from __future__ import annotations

import json
import logging
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import load_dataset
from datasets.exceptions import DatasetGenerationError
from pydantic import Field

from ebft.data.jsonl import UNREADABLE, open_text
from ebft.data.rows import RowOptions, Rows
from ebft.data.split import apart_from, split
from ebft.errors import UserError
from ebft.parts.splits import Splits

# It logs a traceback before it raises; the error raised here says what is wrong.
logging.getLogger("datasets.packaged_modules.json.json").setLevel(logging.CRITICAL)

FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}


class Files(RowOptions):
    """Rows with a completion and, unless they are raw text, a prompt.

    The file is converted once, and then read row by row from the cache of `datasets`: it may be
    larger than memory.
    """

    path: Path = Field(description="a .jsonl, .json, .parquet or .csv file, .gz too")
    held_out: float = Field(0.1, gt=0, lt=1, description="fraction of the rows to hold out")
    held_out_path: Path | None = Field(
        None, description="a file of held-out rows; `held_out` is not used then"
    )

    def __call__(self) -> Splits:
        """Raises `UserError` naming the file and, where there is one, the row."""
        examples = self._read(self.path, "data.path")
        if self.held_out_path is None:
            return split(examples, self.held_out, key=f"data.path = {self.path}")
        held_out = self._read(self.held_out_path, "data.held_out_path")
        return apart_from(examples, held_out, key=f"data.path = {self.path}")

    def _read(self, path: Path, key: str) -> Rows:
        if path.is_dir():
            raise UserError(
                f"{key} = {path}: is a folder, and this reads one file; for a folder of .py files "
                "set data=python_files"
            )
        if not path.is_file():
            raise UserError(f"{key} = {path}: no such file")
        suffix = (path.with_suffix("") if path.suffix == ".gz" else path).suffix
        if suffix not in FORMATS:
            raise UserError(f"{key} = {path}: ends in none of {', '.join(FORMATS)}")
        if path.stat().st_size == 0:
            raise UserError(f"{key} = {path}: the file is empty")
        wrong = None
        if suffix == ".jsonl":
            wrong = bad_line(path, among=1)
        elif suffix == ".json":  # some that are no list of objects end the process inside Arrow
            wrong = bad_list(path)
        if wrong:
            raise UserError(f"{key} = {path}: cannot be read: {wrong}")
        try:
            # In a CSV file `NA` is a text like another.
            options = {"keep_default_na": False} if suffix == ".csv" else {}
            rows: Any = load_dataset(
                FORMATS[suffix], data_files=str(path), split="train", **options
            )
        # datasets raises StopIteration for a compressed file of nothing.
        except (DatasetGenerationError, ValueError, StopIteration, *UNREADABLE) as error:
            reason = bad_line(path) if suffix == ".jsonl" else None
            reason = reason or str(error.__cause__ or error) or "it is empty"
            raise UserError(f"{key} = {path}: cannot be read: {reason}") from error
        if len(rows) == 0:
            raise UserError(f"{key} = {path}: the file has no rows")
        return Rows(rows, self.columns(), path.name)


def bad_list(path: Path) -> str | None:
    """What is wrong with a JSON file, if it is neither a list of objects nor one a line."""
    try:
        with open_text(path) as file:
            content = json.load(file)
    except json.JSONDecodeError:
        return bad_line(path)
    except (*UNREADABLE, RecursionError) as error:
        return str(error)
    rows = content if isinstance(content, list) else [content]
    if not rows:
        return "it has no rows"
    return None if all(isinstance(row, dict) for row in rows) else "it is no list of JSON objects"


def bad_line(path: Path, among: int | None = None) -> str | None:
    """What is wrong with a JSONL file: its first line that is not a JSON object, if there is one.

    `among` looks at so many lines only.
    """
    try:
        with open_text(path) as lines:
            for number, line in enumerate(islice(lines, among), 1):
                if not line.strip():
                    continue
                try:
                    if not isinstance(json.loads(line), dict):
                        return f"line {number} is not a JSON object: {line.strip()[:80]}"
                except json.JSONDecodeError as error:
                    return f"line {number} is not JSON ({error}): {line.strip()[:80]}"
                except RecursionError:
                    return f"line {number} is nested too deeply: {line.strip()[:80]}"
    except UNREADABLE as error:
        return str(error)
    return None
