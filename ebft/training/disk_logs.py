"""Log files of torchtune's DiskLogger when a run goes on from an earlier step than they reach."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ebft.config.component import Component
from ebft.files import write_whole

DISK_LOGGER = "torchtune.training.metric_logging.DiskLogger"
LINE = re.compile(r"Step (\d+) \| .*\n")


def cut_disk_logs(loggers: Sequence[Component], *, after: int) -> None:
    """Drops the lines of steps beyond `after`, and half-written ones: they are logged again."""
    for logger in loggers:
        if logger.path != DISK_LOGGER:
            continue
        for file in sorted(Path(logger.arguments["log_dir"]).glob("*.txt")):
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [
                line for line in lines if (step := LINE.fullmatch(line)) and int(step[1]) <= after
            ]
            if kept != lines:
                write_whole(file, "".join(kept))
