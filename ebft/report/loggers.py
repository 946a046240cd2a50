"""Metric loggers that a recipe may name in `metric_loggers`, beside `metrics.jsonl`.

Each needs its own package, which is imported when the logger is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ebft.errors import UserError
from ebft.parts.packages import missing


class MetricLogger(Protocol):
    """What a class needs to be named in a recipe's `metric_loggers`."""

    def log_dict(self, payload: Mapping[str, float], step: int) -> None:
        """Logs metrics by their names, after `step` steps."""

    def close(self) -> None:
        """Writes what is held back. Nothing is logged afterwards."""


class TensorBoardLogger:
    """Writes TensorBoard's event files into the folder `log_dir`, one file for each process that
    has run.

    Raises `UserError` if tensorboard is not installed.
    """

    def __init__(self, log_dir: str) -> None:
        _require("tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(log_dir)

    def log_dict(self, payload: Mapping[str, float], step: int) -> None:
        for name, value in payload.items():
            self._writer.add_scalar(name, value, step, new_style=True)

    def close(self) -> None:
        self._writer.close()


class WandBLogger:
    """Logs to Weights & Biases.

    `log_dir` is where its files are kept, which is made if it is missing (default: the working
    directory); other arguments are `wandb.init`'s. Raises `UserError` if wandb is not installed,
    and what `wandb.init` raises.
    """

    def __init__(self, project: str = "ebft", log_dir: str | None = None, **more: Any) -> None:
        _require("wandb")
        import wandb

        if log_dir is not None:
            Path(log_dir).mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(project=project, dir=log_dir, **more)
        # wandb's own step only grows: what it is given of an earlier step is dropped.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log_dict(self, payload: Mapping[str, float], step: int) -> None:
        self._run.log({**payload, "step": step})

    def close(self) -> None:
        self._run.finish()


def _require(package: str) -> None:
    if (lacking := missing(package)) is not None:
        raise UserError(lacking)
