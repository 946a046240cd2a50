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
        self._names: dict[tuple[str, str], list[str]] = {}
        self._count = 0

    def add(self, mistake: UserError, *, name: str = "") -> None:
        """Adds the mistake of a row. Those that differ only in the row's `name` are one line.

        Raises `UserError` if there are `MOST` of them.
        """
        before, _, after = str(mistake).partition(name) if name else (str(mistake), "", "")
        self._names.setdefault((before, after), []).append(name)
        self._count += 1
        if self._count == MOST:
            raise UserError(f"there may be more: reading stopped after {MOST} mistakes")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._count or (error is not None and not isinstance(error, UserError)):
            return
        lines = [
            f"{before}{', '.join(names)}{after}" for (before, after), names in self._names.items()
        ]
        last = [] if error is None else str(error).split("\n")
        raise UserError(*lines, *last) from error
