"""The output folder of a run: one run each, and nothing of another run is left in it."""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ebft.checkpoints.differences import compare, is_below
from ebft.checkpoints.folder import PREFIX
from ebft.config.read import read_yaml
from ebft.errors import UserError
from ebft.files import check_regular, check_writable, write_whole

RECIPE = "recipe.yaml"
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""What file systems say that have no locks."""

log = logging.getLogger("ebft")


class OutputFolder:
    """`output_dir`: what a run writes, and where.

    `lock` refuses a folder that another process is writing into or that cannot be written, and
    `check` one that holds a run, before anything is loaded; `take` makes it this run's when
    everything has been built; `release` lets others in again.
    """

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        self._path, self._overwrite = path, overwrite
        self.checkpoints = path / "checkpoints"
        self.evaluations = path / "evaluations.jsonl"
        self.metrics = path / "metrics.jsonl"
        self.picture = path / "training.png"
        self.lengths = path / "by_length.png"
        self._recipe = path / RECIPE
        # The kernel releases it when this process ends, however it does.
        self._lock = FileLock(path / ".lock", timeout=0, fallback_to_soft=False)

    def lock(self) -> None:
        """Makes the folder, and keeps other processes from writing into it until `release`.

        Raises `UserError` if one is at work there already or the folder cannot be written.
        """
        try:
            check_writable(self._path)
            self._lock.acquire()
        except Timeout as error:
            raise UserError(
                f"output_dir = {self._path}: another process is writing into it; "
                "wait for that run, or choose another folder"
            ) from error
        except OSError as error:
            if error.errno in NO_LOCKS:
                log.warning(
                    "output_dir = %s: is on a file system without locks (%s); see to it yourself "
                    "that no other run writes into it",
                    self._path, error.strerror,
                )  # fmt: skip
                return
            raise UserError(
                f"output_dir = {self._path}: cannot be written: {error.strerror}"
            ) from error

    def check(self, *, resume: bool | None = None) -> None:
        """Raises `UserError` if a run is there already.

        `resume`: whether the run that is there is the one that goes on; None if none ever does.
        """
        if self._has_results() and not (self._overwrite or resume):
            go_on = "" if resume is None else "set checkpoint.resume=auto to go on with that run, "
            raise UserError(
                f"output_dir = {self._path}: there is a run in that folder already; "
                f"choose another with output_dir=…, {go_on}or overwrite=true"
            )

    def check_again(self, recipe: Mapping[str, Any], *, may_differ: Sequence[str]) -> None:
        """Raises `UserError` if a run is there that has not this `recipe`: one that has was stopped
        before it had a checkpoint, and starts again from the beginning."""
        if self._overwrite or not self._has_results():
            return
        there, differ = self._there(), "it has no recipe.yaml"
        if there is not None:
            found = compare(there, recipe).mathematics
            keys = [one.key for one in found if not is_below(one.key, may_differ)]
            if not keys:
                return
            differ = f"it differs in {', '.join(keys)}"
        raise UserError(
            f"output_dir = {self._path}: there is no checkpoint to go on from, but another run in "
            f"that folder ({differ}); choose another with output_dir=…, or overwrite=true"
        )

    def check_overwritten(self, recipe: str) -> None:
        """Raises `UserError` if a run is there that another kind of `recipe` has made: a job
        removes what its own kind has written, and nothing else."""
        there = self._there()
        if self._has_results() and (there is None or there.get("recipe") != recipe):
            other = "no recipe.yaml" if there is None else f"recipe = {there.get('recipe')}"
            raise UserError(
                f"output_dir = {self._path}: there is a run of another kind in that folder "
                f"({other}), and recipe = {recipe} overwrites its own kind alone; "
                "choose another with output_dir=…"
            )

    def _there(self) -> dict[str, Any] | None:
        """The recipe of the run that is there. Raises `UserError` if the file is damaged."""
        if not self._recipe.exists():
            return None
        try:
            check_regular(self._recipe)
        except ValueError as error:
            raise UserError(f"{self._recipe}: cannot be read: {error}") from error
        return read_yaml(self._recipe)

    def _has_results(self) -> bool:
        """Whether a run has written more here than its recipe: a checkpoint, a figure, a log."""
        if any(self.checkpoints.glob(f"{PREFIX}*")):
            return True  # whoever has lost its recipe: a run would take them for its own
        appended = (self.evaluations, self.metrics)
        if any(file.exists() and not _is_empty(file) for file in appended):
            return True  # figures would be appended to whatever it is
        if not self._recipe.exists():
            return False  # whatever it is, no run has written it
        files = (file for file in self._path.rglob("*") if file.name not in (RECIPE, ".lock"))
        return any(file.is_file() and not _is_empty(file) for file in files)

    def take(self, recipe: str, *, resume: bool = False) -> None:
        """Removes the figures of an overwritten run, and saves the recipe as it was resolved."""
        stale = [self.evaluations, self.metrics]
        if self._recipe.exists():
            stale += [self.picture, self.lengths]
        for file in [] if resume else stale:
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise UserError(f"{file}: cannot be removed: {error.strerror}") from error
        write_whole(self._recipe, recipe)

    def release(self) -> None:
        """Lets other processes write into the folder."""
        self._lock.release()


def _is_empty(file: Path) -> bool:
    """Whether it is a file with nothing in it, and no pipe or folder."""
    return file.is_file() and file.stat().st_size == 0
