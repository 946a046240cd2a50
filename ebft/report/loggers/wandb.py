"""A metric logger for Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ebft.report.loggers.interface import Cell, LoggedRun, require


class WandBLogger:
    """Logs to Weights & Biases. The recipe is the run's config, and a resumed run continues the
    run of the same id.

    `log_dir` is where its files are kept, which is made if it is missing (default: the working
    directory); other arguments are `wandb.init`'s. Raises `UserError` if wandb is not installed,
    and `begin` what `wandb.init` raises.
    """

    def __init__(self, project: str = "ebft", log_dir: str | None = None, **more: Any) -> None:
        require("wandb")
        self._folder, self._given = log_dir, {"project": project, **more}

    def begin(self, run: LoggedRun) -> None:
        import wandb

        if self._folder is not None:
            Path(self._folder).mkdir(parents=True, exist_ok=True)
        own = {"id": run.id, "name": run.name, "config": dict(run.recipe), "resume": "allow"}
        self._run = wandb.init(**{"dir": self._folder, **own, **self._given})
        # wandb's own step only grows: what it is given of an earlier step is dropped.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log_dict(self, payload: Mapping[str, float], step: int) -> None:
        self._run.log({**payload, "step": step})

    def log_table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], step: int
    ) -> None:
        import wandb

        table = wandb.Table(columns=list(columns), data=[list(row) for row in rows])
        self._run.log({name: table, "step": step})

    def close(self) -> None:
        self._run.finish()
