"""What a part of the acceptance script reports: figures, each with its limit, in a small file."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import transformers

from ebft.files import write_whole
from tests.benchmarks.machine import commit, hardware

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


class Skip(Exception):  # it is no error
    """Raised by a part that cannot run here; says why, and what to install."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a part runs. `rehearse`: tiny shapes on the CPU, to see that the script works.

    `minutes` are those that the part may take, and `folder` is for the small files that it leaves.
    """

    device: str
    rehearse: bool
    minutes: float
    folder: Path

    @property
    def on(self) -> torch.device:
        return torch.device(self.device)

    def sized(self, on_gpu: Any, rehearsed: Any) -> Any:
        """The first on a GPU, the second in a rehearsal."""
        return rehearsed if self.rehearse else on_gpu


@dataclass
class Report:
    """The figures of a part. They are written as soon as they are there, so that a part that is
    stopped leaves those that it has."""

    part: str
    place: Place
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    status: str = "running"
    why: str = ""
    began: float = field(default_factory=perf_counter)

    def figure(self, name: str, value: float | str, unit: str = "") -> None:
        """A figure that is only reported."""
        self._add(name, value=value, unit=unit)

    def check(
        self,
        name: str,
        value: float,
        *,
        at_most: float = math.inf,
        at_least: float = -math.inf,
        unit: str = "",
        only_on_gpu: bool = False,
    ) -> None:
        """A figure with limits. `only_on_gpu`: a rehearsal reports it without judging it."""
        judged = not (only_on_gpu and self.place.rehearse)
        limits = {"at_most": at_most, "at_least": at_least}
        said = {name: limit for name, limit in limits.items() if math.isfinite(limit)}
        passed = at_least <= value <= at_most  # False for NaN
        self._add(name, value=value, unit=unit, **said, **({"passed": passed} if judged else {}))

    def attach(self, name: str, text: str) -> None:
        """Writes a small file beside the report."""
        write_whole(self.place.folder / f"{self.part}-{name}", text)

    def end(self, status: str, why: str = "") -> None:
        self.status, self.why = status, why
        self.write()

    def judge(self) -> None:
        """Ends the report: it has passed if no figure is outside its limits."""
        missed = [name for name, figure in self.figures.items() if figure.get("passed") is False]
        why = f"outside its limits: {', '.join(missed)}" if missed else ""
        self.end(FAILED if missed else PASSED, why)

    def write(self) -> None:
        place = self.place
        written = {
            "part": self.part, "status": self.status, "why": self.why,
            "seconds": round(perf_counter() - self.began, 1), "rehearsal": place.rehearse,
            "hardware": hardware(place.device), "commit": commit(), "torch": torch.__version__,
            "transformers": transformers.__version__, "figures": self.figures,
        }  # fmt: skip
        text = json.dumps(written, indent=1, ensure_ascii=False) + "\n"
        write_whole(place.folder / f"{self.part}.json", text)

    def _add(self, name: str, **figure: Any) -> None:
        self.figures[name] = figure
        self.write()
