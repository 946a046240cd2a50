"""A metric logger for trackio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ebft.report.loggers.interface import Cell, LoggedRun, require


class TrackioLogger:
    """Logs to trackio: on this machine, or to a Space of the Hugging Face Hub with `space_id`. The
    recipe is the run's config, and a resumed run continues the run of the same name.

    Other arguments are `trackio.init`'s. Raises `UserError` if trackio is not installed, and
    `begin` what `trackio.init` raises.
    """

    def __init__(self, project: str = "ebft", **more: Any) -> None:
        require("trackio")
        self._given = {"project": project, **more}

    def begin(self, run: LoggedRun) -> None:
        import trackio

        own = {"name": f"{run.name}-{run.id}", "config": dict(run.recipe), "resume": "allow"}
        self._run = trackio.init(**{**own, **self._given})

    def log_dict(self, payload: Mapping[str, float], step: int) -> None:
        self._run.log(dict(payload), step=step)

    def log_table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], step: int
    ) -> None:
        import trackio

        table = trackio.Table(columns=list(columns), data=[list(row) for row in rows])
        self._run.log({name: table}, step=step)

    def close(self) -> None:
        self._run.finish()
