"""Log files of torchtune's DiskLogger when a run goes on from an earlier step than they reach."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from ebft.config.component import Component
from ebft.files import write_whole

DISK_LOGGER = "torchtune.training.metric_logging.DiskLogger"
LINE = re.compile(r"Step (\d+) \| .*\n")

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
        for file in sorted(folder.glob(logger.arguments.get("filename") or "log_*.txt")):
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [
                line for line in lines if (step := LINE.fullmatch(line)) and int(step[1]) <= after
            ]
            if kept != lines:
                write_whole(file, "".join(kept))
