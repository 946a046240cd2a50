"""From the rows of a data set to examples: which column is the prompt, which the completion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ebft.errors import UserError
from ebft.interfaces import Example


def rows_to_examples(
    rows: Iterable[Mapping[str, Any]],
    *,
    prompt: str | None,
    completion: str,
    check: str | None,
    source: str,
) -> list[Example]:
    """One example a row, named `source:row` from 1.

    Raises `UserError` naming the column, the row and the columns there are.
    """
    return [
        Example(
            name=f"{source}:{number}",
            completion=_text(row, completion, "completion", f"{source}, row {number}"),
            prompt=_text(row, prompt, "prompt", f"{source}, row {number}") if prompt else "",
            check=_text(row, check, "check", f"{source}, row {number}") if check else "",
        )
        for number, row in enumerate(rows, 1)
    ]


def _text(row: Mapping[str, Any], column: str, option: str, where: str) -> str:
    if column not in row:
        raise UserError(
            f"data.{option} = {column}: {where} has no such column; there are: {', '.join(row)}"
        )
    value = row[column]
    if not isinstance(value, str):
        raise UserError(
            f"data.{option} = {column}: {where} has {value!r} there; a text is needed in every row"
        )
    return value
