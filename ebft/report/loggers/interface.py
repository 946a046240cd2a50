"""What a metric logger has to have, and what it may have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ebft.errors import UserError
from ebft.parts.packages import missing

Cell = str | float | int | None


@dataclass(frozen=True, slots=True)
class LoggedRun:
    """The run that a logger logs: its id, which a resumed run keeps, its name and its recipe with
    all defaults."""

    id: str
    name: str
    recipe: Mapping[str, Any]


class MetricLogger(Protocol):
    """What a class needs to be named in a recipe's `metric_loggers`."""

    def log_dict(self, payload: Mapping[str, float], step: int) -> None:
        """Logs metrics by their names, after `step` steps."""

    def close(self) -> None:
        """Writes what is held back. Nothing is logged afterwards."""


@runtime_checkable
class RunLogger(MetricLogger, Protocol):
    """A metric logger that also takes the recipe and tables.

    It gets the bounds of the held-out figures' intervals too, and tables of these figures and of
    rollouts.
    """

    def begin(self, run: LoggedRun) -> None:
        """Begins to log a run, or continues with one of the same id. Called before all others."""

    def log_table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], step: int
    ) -> None:
        """Logs a table. Those of later steps have the same name and columns."""


def require(package: str) -> None:
    """Raises `UserError` if a package of `EXTRAS` is not installed."""
    if (lacking := missing(package)) is not None:
        raise UserError(lacking)
