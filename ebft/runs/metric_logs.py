"""The files that metric loggers have written, when a run overwrites another or goes on from a step
before their end."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from glob import escape
from itertools import chain
from pathlib import Path
from typing import Any

from ebft.config.component import Component
from ebft.files import write_whole

DISK_LOGGER = "torchtune.training.metric_logging.DiskLogger"
TENSORBOARD = "torchtune.training.metric_logging.TensorBoardLogger"
STEP_LOG = "ebft.study.step_log.StepLog"
LINE = re.compile(r"Step (\d+) \| .*\n")
"""A step of a DiskLogger."""
STAMPED = "log_" + 10 * "[0-9]" + ".txt"
"""What DiskLogger calls a file by itself: log_ and the seconds since 1970."""

log = logging.getLogger("ebft")


def cut_disk_logs(loggers: Sequence[Component], *, within: Path, after: int) -> None:
    """Drops the lines of steps beyond `after`, and a half-written one: they are logged again.

    Only in a run's own folder, `within`: what lies elsewhere may be another run's.
    """
    for logger in loggers:
        if logger.path != DISK_LOGGER:
            continue
        folder = Path(logger.arguments["log_dir"])
        if not folder.resolve().is_relative_to(within.resolve()):
            log.warning(
                "metric_loggers: log_dir = %s is not in output_dir, so lines of steps after %d "
                "that an earlier process wrote there stay",
                folder, after,
            )  # fmt: skip
            continue
        name = logger.arguments.get("filename")
        for file in sorted(folder.glob(escape(name) if name else STAMPED)):
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [
                line for line in lines if (step := LINE.fullmatch(line)) and int(step[1]) <= after
            ]
            if kept != lines:
                write_whole(file, "".join(kept))


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
