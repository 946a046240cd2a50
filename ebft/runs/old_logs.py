"""What the metric loggers of an overwritten run have written into its folder, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from glob import escape
from itertools import chain
from pathlib import Path
from typing import Any

from ebft.runs.disk_logs import DISK_LOGGER

STEP_LOG = "ebft.study.step_log.StepLog"
STAMPED = "log_" + 10 * "[0-9]" + ".txt"
"""What DiskLogger calls a file by itself: log_ and the seconds since 1970."""
TENSORBOARD = "torchtune.training.metric_logging.TensorBoardLogger"


def remove_logs(recipe: Mapping[str, Any], folder: Path) -> None:
    """Deletes the logs of the run that `recipe` is of and that lies in `folder` now.

    What other loggers write is not known, and what lies outside of the folder may be another
    run's: both stay.
    """
    match recipe:
        case {"output_dir": str(before), "metric_loggers": [*loggers]}:
            for where, pattern in chain.from_iterable(map(_written, loggers)):
                # From its folder, which may have been moved since.
                inside = os.path.relpath(where, before)
                if inside.split(os.sep)[0] != os.pardir:
                    for file in (folder / inside).glob(pattern):
                        file.unlink(missing_ok=True)


def _written(logger: Any) -> Iterator[tuple[str, str]]:
    """The folder of a logger's files, with a pattern of their names."""
    match logger:
        case {"_component_": kind, "log_dir": str(where)} if kind == DISK_LOGGER:
            if name := logger.get("filename"):
                yield _file(os.path.join(where, name))
            else:
                yield where, STAMPED
        case {"_component_": kind, "log_dir": str(where)} if kind == TENSORBOARD:
            yield where, "**/events.out.tfevents.*"
        case {"_component_": kind, "file": str(file)} if kind == STEP_LOG:
            yield _file(file)


def _file(path: str) -> tuple[str, str]:
    where, name = os.path.split(path)
    return where, escape(name)
