"""Objects of JSON Lines and JSON files, and the rows of benchmark files."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from ebft.data.values import check_text, listed, quoted
from ebft.errors import UserError, first_line
from ebft.files import check_regular

UNREADABLE = (OSError, UnicodeDecodeError, EOFError, zlib.error)
"""The errors of reading a file that is damaged, cut off or not text."""
AROUND = 20
"""Characters before and after a fault that errors quote."""


class Repeating(dict[str, Any]):
    """An object with duplicate keys, which are in `repeated`."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        counts = Counter(name for name, _ in pairs)
        self.repeated = {name for name, count in counts.items() if count > 1}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else Repeating(pairs)


DECODER = json.JSONDecoder(object_pairs_hook=_object)
LONG_NUMBERS = json.JSONDecoder(object_pairs_hook=_object, parse_int=float)
"""Slower: for integers with more digits than Python's int accepts."""


def check_file(path: Path, where: str) -> None:
    """Raises `UserError` beginning with `where` if the path is not that of a regular file."""
    try:
        check_regular(path)
    except OSError as error:
        raise UserError(f"{where}: no such file") from error
    except ValueError as error:
        raise UserError(f"{where}: {error}; give the path of one") from error


def open_text(path: Path, newline: str | None = None) -> IO[str]:
    """Opens the file as text, decompressed if its name ends in .gz, without a byte order mark."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline=newline)
    return path.open(encoding="utf-8-sig", newline=newline)


def unreadable(where: str, error: BaseException) -> UserError:
    """Returns the error for a file that raised one of `UNREADABLE`."""
    if isinstance(error, UnicodeDecodeError):
        byte = error.object[error.start]
        return UserError(f"{where}: is not UTF-8 (byte 0x{byte:02x}); save it as UTF-8")
    return UserError(f"{where}: cannot be read: {first_line(error)}")


def objects_of_lines(path: Path, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the line number and the object of each line of a JSON Lines file.

    Raises `UserError` beginning with `where` and naming the line, or an error in `UNREADABLE`.
    """
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            if text := line.strip():
                row = _decode(text, where, line=number)
                if not isinstance(row, dict):
                    raise UserError(
                        f"{where}: line {number} is not a JSON object: {quoted(row)}; every line "
                        "holds one, with a key for each column"
                    )
                yield number, row


def objects_of_json(path: Path, where: str) -> Iterator[dict[str, Any]]:
    """Yields the objects of a JSON file: of a list, which is read into memory, or one per line.

    Raises as `objects_of_lines` does.
    """
    if _is_lines(path):
        yield from (row for _, row in objects_of_lines(path, where))
        return
    with open_text(path) as file:
        content = _decode(file.read(), where)
    for number, row in enumerate(content if isinstance(content, list) else [content], 1):
        if not isinstance(row, dict):
            raise UserError(f"{where}: item {number} is not a JSON object: {quoted(row)}")
        yield row


def read_rows(path: Path, key: str, fields: Mapping[str, type]) -> list[dict[str, Any]]:
    """Returns the rows of a .jsonl or .jsonl.gz file. Each row has `fields` of these types; lists
    must contain texts.

    `key` is the recipe key that errors name. Raises `UserError` naming the file and the row.
    """
    where = f"{key} = {path}"
    check_file(path, where)
    try:
        rows = [
            checked_row(row, fields, f"{where}: line {number}")
            for number, row in objects_of_lines(path, where)
        ]
    except UNREADABLE as error:
        raise unreadable(where, error) from error
    if not rows:
        raise UserError(f"{where}: the file has no rows")
    return rows


def checked_row(row: dict[str, Any], fields: Mapping[str, type], where: str) -> dict[str, Any]:
    """Returns the row. Raises `UserError` beginning with `where` if it has not `fields` of these
    types; lists must contain texts."""
    for name, kind in fields.items():
        if name not in row:
            raise UserError(f"{where} has no {name!r}; there are: {listed(row)}")
        if isinstance(row, Repeating) and name in row.repeated:
            raise UserError(f"{where} has {name!r} more than once; keep one")
        value, place = row[name], f"{where}, {name}:"
        if kind is str:
            check_text(value, place)
        elif type(value) is not kind:  # True is not a number
            raise UserError(f"{place} has {quoted(value)} there; this is of type {kind.__name__}")
        elif kind is list:
            for text in row[name]:
                check_text(text, place)
    return row


def _is_lines(path: Path) -> bool:
    """Whether a JSON file has an object per line: its first line that is not empty is one, or all
    are empty."""
    with open_text(path) as lines:
        first = next((line for line in lines if line.strip()), None)
    if first is None:
        return True
    if not first.lstrip().startswith("{"):
        return False
    try:
        DECODER.decode(first)
    except json.JSONDecodeError:
        return False
    except (ValueError, RecursionError):
        return True
    return True


def _decode(text: str, where: str, line: int = 1, *, decoder: json.JSONDecoder = DECODER) -> Any:
    try:
        return decoder.decode(text)
    except json.JSONDecodeError as error:
        around = text[max(0, error.pos - AROUND) : error.pos + AROUND]
        raise UserError(
            f"{where}: line {line + error.lineno - 1} is not JSON ({error.msg} near "
            f"{quoted(around)}); repair it, or leave it out"
        ) from error
    except RecursionError as error:
        raise UserError(
            f"{where}: line {line} is nested too deeply: {quoted(text)}; leave it out"
        ) from error
    except ValueError:  # an integer of too many digits; the text may have other faults too
        return _decode(text, where, line, decoder=LONG_NUMBERS)
