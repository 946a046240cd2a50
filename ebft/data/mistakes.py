"""Mistakes in the rows of a data set, collected so that an error has several of them at once."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from ebft.errors import UserError

MOST = 10
"""Mistakes after which no more rows are read."""


class Mistakes:
    """A context that collects the mistakes of rows.

    Leaving it raises one `UserError` with a line for each. Of a `UserError` that ends the reading,
    such as one of a file that is cut off, the lines follow them.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, mistake: UserError) -> None:
        """Adds the mistake of a row. Raises `UserError` if there are `MOST` of them."""
        self._lines.append(str(mistake))
        if len(self._lines) == MOST:
            raise UserError(f"there may be more: reading stopped after {MOST} mistakes")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._lines or (error is not None and not isinstance(error, UserError)):
            return
        last = [] if error is None else str(error).split("\n")
        raise UserError(*self._lines, *last) from error
