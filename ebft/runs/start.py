"""Where a run starts: at its first step, or after the checkpoint that it goes on from."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

from ebft.checkpoints.folder import Checkpoints
from ebft.checkpoints.resume import AUTO, Resumption, find_resumption
from ebft.checkpoints.room import check_room
from ebft.distributed.processes import Processes
from ebft.errors import UserError
from ebft.runs.metrics_log import cut_metrics
from ebft.runs.options import FineTuneOptions
from ebft.runs.output import OutputFolder


class Start:
    """The step at which a run starts, in its output folder.

    `resumed` is the checkpoint that it goes on from, if there is one, and `micro_batch` how many
    documents it had at a time. Raises `UserError` if the folder or the checkpoint may not be used.
    The main process chooses; to the others it is as if the recipe had named what it chose.
    """

    def __init__(
        self,
        options: FineTuneOptions,
        recipe: Mapping[str, Any],
        output: OutputFolder,
        checkpoints: Checkpoints,
        processes: Processes,
    ) -> None:
        self._options, self._recipe = options, recipe
        self._output, self._checkpoints, self._processes = output, checkpoints, processes
        if processes.is_main:
            output.lock()  # before checkpoints are looked at: they may be set aside or removed
        resumed = self._choose(options.checkpoint.resume) if processes.is_main else None
        chosen = processes.broadcast(None if resumed is None else str(resumed.folder))
        if not processes.is_main:
            resumed = self._choose(chosen)
        self.resumed = resumed
        self.step = 0 if resumed is None else resumed.step
        self.micro_batch = None if resumed is None else resumed.about.micro_batch

    def check_room(self, size: int) -> None:
        """Raises `UserError` if not even one checkpoint of `size` bytes has room, and warns if
        fewer have than there will be at a time."""
        options = self._options.checkpoint
        left = self._options.training.steps - self.step
        if left == 0:
            return
        deleted = self._deleted(self.resumed)
        # The oldest is dropped once the newest is whole.
        most = options.keep + 1 + (options.best is not None)
        stay = len(self._checkpoints.saved()) - len(deleted)
        saves = 1 if options.every is None else ceil(left / options.every)
        wanted = max(1, min(saves, most - stay))
        check_room(
            self._options.output_dir, size,
            wanted=wanted, within=self._checkpoints.place, freed=deleted,
        )  # fmt: skip

    def take(self, recipe: str) -> None:
        """Makes the output folder this run's; `recipe` is the recipe as it was resolved.

        To be called when all else is there and before anything is logged: it deletes the
        checkpoints and the log of an overwritten run, or the lines that will be logged again.
        """
        in_place = self._in_place(self.resumed)
        if in_place:
            cut_metrics(self._output.metrics, after=self.step)
        else:
            self._checkpoints.clear()
        self._output.take(recipe, resume=in_place)
        if in_place and self.resumed is not None:
            self.resumed.drop_later(self._checkpoints)

    def _choose(self, resume: str | None) -> Resumption | None:
        wanted = self._options.checkpoint
        resumed = find_resumption(
            resume,
            self._checkpoints,
            self._recipe,
            may_differ=wanted.may_differ,
            overwrite=self._options.overwrite,
            verified=not self._processes.is_main,  # by the main process, which chose it
        )
        if self._processes.is_main:
            if wanted.resume == AUTO and resumed is None:
                self._output.check_again(self._recipe, may_differ=wanted.may_differ)
            else:
                self._output.check(resume=self._in_place(resumed))
            self._check_sources(resumed)
            self._checkpoints.clear_partial()
        return resumed

    def _check_sources(self, resumed: Resumption | None) -> None:
        """Raises `UserError` if the run starts from what `take` would delete."""
        options, deleted = self._options, self._deleted(resumed)
        sources = {
            "checkpoint.resume": options.checkpoint.resume,
            "model.path": options.model.path,
            "model.base": options.model.base,
        }
        for key, value in sources.items():
            if value is None:
                continue
            path = Path(value).expanduser().resolve()
            if any(path.is_relative_to(checkpoint.resolve()) for checkpoint in deleted):
                raise UserError(
                    f"{key} = {value}: overwrite=true would delete it, with what else is in "
                    f"output_dir = {options.output_dir}; choose another output_dir, or a copy of it"
                )

    def _deleted(self, resumed: Resumption | None) -> list[Path]:
        """The checkpoints that `take` deletes."""
        own = self._checkpoints
        goes_on = resumed is not None and self._in_place(resumed)
        return resumed.later(own) if resumed is not None and goes_on else own.saved()

    def _in_place(self, resumed: Resumption | None) -> bool:
        """Whether the run goes on in the folder that it was in."""
        return resumed is not None and self._checkpoints.holds(resumed.folder)
