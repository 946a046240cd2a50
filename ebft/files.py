"""Writes files atomically, and validates ebft's own files when they are read.

A file may have been damaged, edited or made by another program. So each file is parsed into a typed
record before it is used. A `ValueError` names the field and its value; the caller adds the file's
name and the line number.
"""

from __future__ import annotations

import csv
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from math import isfinite
from pathlib import Path
from typing import IO, Annotated, Any, TypeVar
from uuid import uuid4

from pydantic import (
    AfterValidator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    TypeAdapter,
)
from pydantic import ValidationError as Invalid

from ebft.printable import cut_short

Flag = StrictBool
LARGEST = 1e300
"""Of a figure: the difference of larger ones is infinite, and no picture shows it."""
Text = StrictStr
Count = Annotated[StrictInt, Field(ge=0, lt=2**63)]
"""Steps, seeds and counts that fit into a column of a table."""
DEEPEST = 100
"""Most levels of nested objects and lists; Python's recursion limit is about a thousand."""
OBJECTS = ("dataclass_type", "dict_type", "mapping_type", "model_type")
"""pydantic's error types for a value that is not an object."""
SHOWN = 40
"""Characters of a value that a message quotes."""


def _not_too_large(value: float) -> float:
    if isfinite(value) and abs(value) > LARGEST:
        raise ValueError(f"it must be within ±{LARGEST:g}, or infinite or NaN")
    return value


Number = Annotated[StrictFloat, AfterValidator(_not_too_large)]
Finite = Annotated[StrictFloat, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]
Amount = Annotated[StrictFloat, Field(ge=0, le=LARGEST, allow_inf_nan=False)]

Record = TypeVar("Record")


@contextmanager
def replacing(file: Path) -> Iterator[IO[bytes]]:
    """Yields a stream whose content replaces the file's at the end. If interrupted, the file has
    either the old or the new content."""
    # Two processes may write the same file at once, so each has its own partial file.
    partial = file.with_name(f".{file.name}.{uuid4().hex[:8]}.partial")
    try:
        with partial.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    except BaseException:
        partial.unlink(missing_ok=True)  # it would take space on a full disk
        raise


def write_whole(file: Path, content: str | bytes) -> None:
    """Replaces the file's content atomically."""
    with replacing(file) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


def check_writable(folder: Path) -> None:
    """Creates the folder, and creates and removes a file in it. Raises `OSError` on failure."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".writable").touch()
    (folder / ".writable").unlink(missing_ok=True)  # two processes may do this at once


def check_regular(file: Path) -> None:
    """Raises `ValueError` for a folder, a pipe or a device, because reading one may never end.

    Raises `OSError` if the file does not exist.
    """
    if not stat.S_ISREG(file.stat().st_mode):
        raise ValueError("it is a folder, a pipe or a device, not a regular file")


def read_text(file: Path) -> str:
    """Returns a regular file's text. Raises `ValueError` if it is not text, and `OSError`."""
    check_regular(file)
    return file.read_text(encoding="utf-8")


def record(value: Any, kind: TypeAdapter[Record]) -> Record:
    """Parses a JSON value into a record. Raises `ValueError` for the first mistake."""
    return _valid(kind.validate_python, value)


def _valid(validate: Callable[[Any], Record], value: Any) -> Record:
    try:
        return validate(value)
    except Invalid as error:
        detail = error.errors(include_url=False)[0]
        field = ".".join(map(str, detail["loc"]))
        if detail["type"] == "missing":
            raise ValueError(f"{field} is missing") from error
        what = "it must be an object" if detail["type"] in OBJECTS else detail["msg"]
        what = what.replace("Input should", "it must").removeprefix("Value error, ")
        given = f"{field} = {_quoted(detail['input'])}: " if field else ""
        raise ValueError(f"{given}{what}") from error


def parse_json(text: str) -> Any:
    """Parses JSON. Raises `ValueError` for other text, and for too deeply nested values."""
    try:
        value = json.loads(text)
        level = [value]
        for _ in range(DEEPEST):
            if not level:
                return value
            level = [item for outer in level for item in _within(outer)]
    except RecursionError:
        pass
    raise ValueError(f"it is nested more than {DEEPEST} levels deep")


def whole_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yields the number and text of each line of a JSON Lines file, without empty lines and a last
    line that was cut off."""
    whole, _, _ = text.rpartition("\n")
    return ((number, line) for number, line in enumerate(whole.split("\n"), 1) if line)


def read_lines(file: Path, kind: TypeAdapter[Record]) -> Iterator[tuple[Record, str]]:
    """Yields each line of a JSON Lines file as a record, with its text, as `whole_lines` has them.

    Yields nothing without a file. Raises `ValueError` naming the line and the field.
    """
    try:
        text = read_text(file)
    except FileNotFoundError:
        return
    for number, line in whole_lines(text):
        try:
            yield record(parse_json(line), kind), line
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as CSV: floats with every digit, an empty cell for None.

    Raises `ValueError` if two columns have the same name.
    """
    _check_header(columns)
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def read_table(file: Path, kind: TypeAdapter[Record]) -> Iterator[tuple[int, Record]]:
    """The rows of a table as records, with their numbers; the header is row 1.

    An empty cell is a field that is not given. Raises `ValueError` naming the row and the field.
    """
    text = read_text(file)
    if not text.endswith("\n"):
        raise ValueError("its last row was cut off")
    rows = csv.reader(StringIO(text, newline=""), strict=True)
    number = 0
    try:
        header, number = next(rows), 1
        _check_header(header)
        for number, cells in enumerate(rows, 2):
            if len(cells) != len(header):
                raise ValueError(f"it has {len(cells)} cells, and the header {len(header)}")
            given = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
            yield number, _valid(kind.validate_strings, given)
    except csv.Error as error:
        raise ValueError(f"row {number + 1}: {error}") from error
    except ValueError as error:
        raise ValueError(f"row {number}: {error}") from error


def _check_header(columns: Sequence[str]) -> None:
    for number, name in enumerate(columns):
        if name in columns[:number]:
            raise ValueError(f"two columns are called {name}")


def _within(value: Any) -> Iterator[Any]:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (item for item in items if isinstance(item, dict | list))


def _quoted(value: Any) -> str:
    return cut_short(repr(value), SHOWN)
