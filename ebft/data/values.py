"""Values of rows, checked to be texts, and their short forms in errors."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from reprlib import Repr
from typing import Any

from ebft.errors import UserError
from ebft.printable import cut_short

LONGEST = 60
"""Characters of a value that errors quote."""
LISTED = 12
"""Most columns that errors list."""

_quote = Repr()
_quote.maxstring = _quote.maxother = LONGEST


def quoted(value: object) -> str:
    """Returns a value as errors quote it: printable and shortened."""
    return cut_short(_quote.repr(value), 2 * LONGEST)


def listed(names: Iterable[str]) -> str:
    """Returns the names of columns as errors list them: quoted if they are not plain words."""
    names = list(names)
    plain = [name if name and name == name.strip() and _is_short(name) else quoted(name)
             for name in names[:LISTED]]  # fmt: skip
    return ", ".join([*plain, *(["…"] if len(names) > LISTED else [])])


def _is_short(name: str) -> bool:
    return name.isprintable() and len(name) <= LONGEST


def safe_name(path: str | PurePath) -> str:
    """Returns a path as the name of a text; bytes that are not UTF-8 are written `\\xe9`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def check_columns(there: Sequence[str], columns: Mapping[str, str], source: str) -> None:
    """Raises `UserError` for a column that is missing, or there twice. `columns` maps options to
    columns."""
    for option, column in columns.items():
        where = f"data.{option} = {column}: {source}"
        if column not in there:
            raise UserError(f"{where} has no such column; there are: {listed(there)}")
        if there.count(column) > 1:
            raise UserError(f"{where} has {there.count(column)} columns of this name; rename one")


def check_text(value: Any, where: str) -> str:
    """Returns the value if it is a text that can be encoded as UTF-8. Raises `UserError` beginning
    with `where` otherwise."""
    if not isinstance(value, str):
        raise UserError(f"{where} has {quoted(value)} there; a text is needed in every row")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            around = value[max(0, error.start - 10) : error.start + 10]
            raise UserError(
                f"{where} has half a surrogate pair there, which is not a character: "
                f"{quoted(around)}; repair the text, or leave the row out"
            ) from error
    return value
