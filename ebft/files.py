"""Files that are written whole or not at all, and files of ebft's own that are read back.

What is read back may have been damaged, edited or made by another program since. So each file is
parsed into a typed record before it is used. A `ValueError` names the field and its value; the
caller puts the file's name, and the line's number, before that.
"""

from __future__ import annotations

import csv
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import IO, Annotated, Any, TypeVar
from uuid import uuid4

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr, TypeAdapter
from pydantic import ValidationError as Invalid

Flag = StrictBool
Number = StrictFloat
Text = StrictStr
Count = Annotated[StrictInt, Field(ge=0, lt=2**63)]
"""Steps, seeds and numbers of things: what a column of a table holds."""
DEEPEST = 100
"""Objects and lists within each other; Python's own recursion ends at about a thousand."""
OBJECTS = ("dataclass_type", "dict_type", "mapping_type", "model_type")
"""pydantic's kinds of errors of a value that is no object."""
SHOWN = 40
"""Letters of a value that a message quotes."""

Record = TypeVar("Record")


@contextmanager
def replacing(file: Path) -> Iterator[IO[bytes]]:
    """A stream whose content replaces the file's at the end; whatever interrupts that, the file
    holds the old one or the new."""
    # Two processes may write the same file at once: each its own partial one.
    partial = file.with_name(f".{file.name}.{uuid4().hex[:8]}.partial")
    try:
        with partial.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    except BaseException:
        partial.unlink(missing_ok=True)  # on a full disk it would take the room that is left
        raise


def write_whole(file: Path, content: str | bytes) -> None:
    """Replaces the file's content, as `replacing` does."""
    with replacing(file) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


def check_writable(folder: Path) -> None:
    """Makes the folder, and a file in it that goes again. Raises `OSError` if it cannot."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".writable").touch()
    (folder / ".writable").unlink(missing_ok=True)  # two processes may do so at once


def check_regular(file: Path) -> None:
    """Raises `ValueError` for a folder, a pipe or a device: reading one may never end.

    Raises `OSError` if there is nothing of that name.
    """
    if not stat.S_ISREG(file.stat().st_mode):
        raise ValueError("it is a folder, a pipe or a device, and no regular file")


def read_text(file: Path) -> str:
    """A regular file's text. Raises `ValueError` for what is none, and `OSError`."""
    check_regular(file)
    return file.read_text(encoding="utf-8")


def record(value: Any, kind: TypeAdapter[Record]) -> Record:
    """The record that a value of JSON is; raises `ValueError` for the first thing that is wrong."""
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
    """What a text in JSON says. Raises `ValueError` for other text, and for one nested too deep."""
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
    """The lines of a file of JSON lines, with their numbers; a last one that was cut off does not
    count, and empty ones are passed over."""
    whole, _, _ = text.rpartition("\n")
    return ((number, line) for number, line in enumerate(whole.split("\n"), 1) if line)


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
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
