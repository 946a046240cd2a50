"""Rows of a JSON Lines file that a benchmark comes as, with the fields that it is known to have."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from ebft.errors import UserError

UNREADABLE = (OSError, UnicodeDecodeError, EOFError, zlib.error)
"""What a file raises that is damaged, cut off or not text."""


def open_text(path: Path) -> IO[str]:
    """The file's text, decompressed if its name ends in .gz."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def read_rows(path: Path, key: str, fields: Mapping[str, type]) -> list[dict[str, Any]]:
    """The rows of a .jsonl or .jsonl.gz file; each has `fields` of these types.

    `key` is the recipe key that errors name. Raises `UserError` naming the file and the row.
    """
    if not path.is_file():
        raise UserError(f"{key} = {path}: no such file")
    rows = []
    try:
        with open_text(path) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    rows.append(_row(line, fields, f"{key} = {path}: line {number}"))
    except UNREADABLE as error:
        raise UserError(f"{key} = {path}: cannot be read: {error}") from error
    if not rows:
        raise UserError(f"{key} = {path}: the file has no rows")
    return rows


def _row(line: str, fields: Mapping[str, type], where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not JSON ({error})") from error
    except RecursionError as error:
        raise UserError(f"{where} is nested too deeply") from error
    if not isinstance(row, dict):
        raise UserError(f"{where} is not a JSON object")
    for name, kind in fields.items():
        if not isinstance(row.get(name), kind):
            there = ", ".join(row)
            raise UserError(f"{where} has no {kind.__name__} {name!r}; there are: {there}")
    return row
