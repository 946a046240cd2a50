"""`metrics.jsonl`: the metrics of every step, which each run writes into its output folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path

from pydantic import BaseModel, TypeAdapter

from ebft.errors import UserError
from ebft.files import Count, Number, read_lines, write_whole


class MetricsLine(BaseModel, extra="allow"):
    """A line of the file: the number of steps done, and figures by name."""

    __pydantic_extra__: dict[str, Number | None]
    step: Count

    @property
    def figures(self) -> dict[str, float]:
        """The finite figures."""
        return {name: value for name, value in self.__pydantic_extra__.items() if value is not None}


LINE = TypeAdapter(MetricsLine)


class MetricsLog:
    """A metric logger that appends a line `{"step": …, name: value, …}` to a file for each call.

    A figure that is not finite is written as null, because JSON has no infinity or NaN.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def log_dict(self, payload: Mapping[str, float], step: int) -> None:
        """Appends a line. Raises `OSError` if it cannot be written."""
        figures = {name: float(value) for name, value in payload.items()}
        finite = {name: value if isfinite(value) else None for name, value in figures.items()}
        # Opened for each line, so that no line is lost in a buffer when the process is killed.
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **finite}) + "\n")

    def close(self) -> None:
        """Does nothing, because the file is closed after each line."""


def read_metrics(file: Path) -> list[MetricsLine]:
    """Returns the lines of a run's log, without a last line that was cut off; none without a log.

    Raises `UserError` naming the first damaged line.
    """
    return [line for line, _ in _lines(file)]


def cut_metrics(file: Path, *, after: int) -> None:
    """Removes the lines of steps beyond `after`, and a last line that was cut off.

    Raises `UserError` as `read_metrics` does, and then changes nothing.
    """
    kept = [text + "\n" for line, text in _lines(file) if line.step <= after]
    if file.exists():
        write_whole(file, "".join(kept))


def _lines(file: Path) -> Iterator[tuple[MetricsLine, str]]:
    try:
        yield from read_lines(file, LINE)
    except ValueError as error:
        raise UserError(
            f"{file} is damaged: {error}; delete it: it is only used to plot curves of training"
        ) from error
