"""A metric logger for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml

from ebft.printable import plain_markdown
from ebft.report.loggers.interface import Cell, LoggedRun, require


class TensorBoardLogger:
    """Writes TensorBoard's event files into the folder `log_dir`, one file for each process that
    has run. The recipe and tables are among its texts.

    Raises `UserError` if tensorboard is not installed.
    """

    def __init__(self, log_dir: str) -> None:
        require("tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(log_dir)

    def begin(self, run: LoggedRun) -> None:
        text = yaml.safe_dump(dict(run.recipe), sort_keys=False, allow_unicode=True)
        indented = "".join(f"    {line}\n" for line in text.splitlines())  # a block of code
        self._writer.add_text("recipe", indented)

    def log_dict(self, payload: Mapping[str, float], step: int) -> None:
        for name, value in payload.items():
            self._writer.add_scalar(name, value, step, new_style=True)

    def log_table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], step: int
    ) -> None:
        lines = [
            list(columns),
            ["---"] * len(columns),
            *([_cell(it) for it in row] for row in rows),
        ]
        self._writer.add_text(name, "\n".join(f"| {' | '.join(line)} |" for line in lines), step)

    def close(self) -> None:
        self._writer.close()


def _cell(value: Cell) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else plain_markdown(str(value))
