"""Rows of the formats that `files` reads: texts exactly as in the file, only of named columns.

No type is guessed. Other columns are only parsed as far as needed to find the rows.
"""

from __future__ import annotations

import csv
import gzip
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ebft.data.jsonl import (
    UNREADABLE,
    Repeating,
    objects_of_json,
    objects_of_lines,
    open_text,
    unreadable,
)
from ebft.data.messages import check_row
from ebft.data.mistakes import Mistakes
from ebft.data.tools import TOOLS, existing
from ebft.data.values import listed, safe_name
from ebft.errors import UserError

Row = Mapping[str, Any]
AT_ONCE = 1000
"""Rows of a Parquet file that are in memory at once."""


def format_of(path: Path) -> str | None:
    """Returns the format by a file's name, without .gz: a key of `READERS`, or None."""
    suffix = (path.with_suffix("") if path.suffix == ".gz" else path).suffix
    return suffix if suffix in READERS else None


def read_texts(path: Path, key: str, columns: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Yields the texts of each row as `check_row` does; `columns` maps options to columns.

    `key` is the recipe key of the path. A row without tools may lack their column. Raises
    `UserError` naming the file, or the column and the row; with a line for each of several rows.
    """
    where, source = f"{key} = {path}", safe_name(path.name)
    reader = READERS[format_of(path) or ""]
    places = {option: f"data.{option} = {column}: {source}" for option, column in columns.items()}
    with Mistakes() as mistakes:
        try:
            has_tools, there = False, ""
            for number, row in enumerate(reader(path, where, columns), 1):
                at = {option: f"{place}, row {number}" for option, place in places.items()}
                if number == 1:
                    # Other rows are likely to lack a column that it lacks, and that is one mistake.
                    _values(row, columns, at)
                has_tools, there = has_tools or columns.get(TOOLS) in row, there or listed(row)
                try:
                    texts = check_row(_values(row, columns, at), at)
                except UserError as error:
                    mistakes.add(error)
                else:
                    yield texts
            if columns.get(TOOLS, TOOLS) != TOOLS and there and not has_tools:
                raise UserError(f"{places[TOOLS]} has no such column; there are: {there}")
        except (*UNREADABLE, pa.ArrowException) as error:
            raise unreadable(where, error) from error


def _values(row: Row, columns: Mapping[str, str], at: Mapping[str, str]) -> dict[str, Any]:
    return {
        option: _value(row, column, at[option], optional=option == TOOLS)
        for option, column in columns.items()
    }


def _value(row: Row, column: str, where: str, *, optional: bool) -> Any:
    if column not in row:
        if optional:
            return None
        raise UserError(
            f"{where} has no such column; there are: {listed(row)}; name another column, or "
            "leave the row out"
        )
    if isinstance(row, Repeating) and column in row.repeated:
        raise UserError(f"{where} has this key more than once; keep one")
    return row[column]


def _json_lines(path: Path, where: str, _: Mapping[str, str]) -> Iterator[Row]:
    return (row for _, row in objects_of_lines(path, where))


def _json(path: Path, where: str, _: Mapping[str, str]) -> Iterator[Row]:
    return objects_of_json(path, where)


def _csv(path: Path, where: str, columns: Mapping[str, str]) -> Iterator[Row]:
    records = _records(path, where)
    _, names = next(records, (0, []))
    if not names:
        return
    columns = existing(names, columns, safe_name(path.name))
    wanted = {column: names.index(column) for column in columns.values()}
    for line, record in records:
        if len(record) != len(names):
            raise UserError(
                f"{where}: line {line} has {len(record)} fields, and the first {len(names)}; "
                "texts with commas or ends of lines in them are quoted"
            )
        yield {column: record[at] for column, at in wanted.items()}


def _records(path: Path, where: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the number of the first line and the fields of each record, without blank lines."""
    csv.field_size_limit(sys.maxsize)  # else a text of more than 128 KiB is refused
    with open_text(path, newline="") as file:
        records = csv.reader(file, strict=True)
        line = 1
        try:
            for record in records:
                if record:
                    yield line, record
                line = records.line_num + 1
        except csv.Error as error:
            raise UserError(
                f"{where}: line {line}: {error}; texts with quotes in them are quoted, and those "
                "quotes doubled"
            ) from error


def _parquet(path: Path, where: str, columns: Mapping[str, str]) -> Iterator[Row]:
    del where
    # An open file, because pyarrow may parse a path as a URI.
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        table = pq.ParquetFile(file)
        columns = existing(table.schema_arrow.names, columns, safe_name(path.name))
        names = sorted(set(columns.values()))
        for batch in table.iter_batches(AT_ONCE, columns=names):
            values = [batch.column(name).to_pylist() for name in names]
            yield from (dict(zip(names, row, strict=True)) for row in zip(*values, strict=True))


READERS: Mapping[str, Callable[[Path, str, Mapping[str, str]], Iterator[Row]]] = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".parquet": _parquet,
    ".csv": _csv,
}
