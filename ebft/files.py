"""Files that are written whole or not at all, and files of ebft's own that are read back.

What is read back may have been damaged, edited or made by another program since. So each file is
parsed into a typed record before it is used. A `ValueError` names the field and its value; the
caller puts the file's name, and the line's number, before that.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
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

Flag = StrictBool
LARGEST = 1e300
"""Of a figure: the difference of larger ones is infinite, and no picture shows it."""
Text = StrictStr
Count = Annotated[StrictInt, Field(ge=0, lt=2**63)]
"""Steps, seeds and numbers of things: what a column of a table holds."""
DEEPEST = 100
"""Objects and lists within each other; Python's own recursion ends at about a thousand."""
OBJECTS = ("dataclass_type", "dict_type", "mapping_type", "model_type")
"""pydantic's kinds of errors of a value that is no object."""
SHOWN = 40
"""Letters of a value that a message quotes."""


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
    try:
        return kind.validate_python(value)
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


def _within(value: Any) -> Iterator[Any]:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (item for item in items if isinstance(item, dict | list))


def _quoted(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
