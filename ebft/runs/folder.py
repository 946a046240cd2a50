"""The output folder of a run, locked for one process, and the step that the run starts at."""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from filelock import FileLock, Timeout

from ebft.checkpoints.differences import compare, is_below
from ebft.checkpoints.folder import PREFIX, Checkpoints
from ebft.checkpoints.resume import AUTO, Resumption, find_resumption
from ebft.checkpoints.room import check_room
from ebft.config.read import read_yaml
from ebft.errors import UserError
from ebft.files import check_regular, check_writable, read_text, write_whole
from ebft.report.rollouts_log import cut_rollouts
from ebft.runs.metrics_log import cut_metrics

if TYPE_CHECKING:
    from ebft.distributed.processes import Processes
    from ebft.runs.options import FineTuneOptions

RECIPE = "recipe.yaml"
RUN_ID = "run_id"
"""The file with the id under which metric loggers know the run."""
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""The error numbers of file systems without locks."""

log = logging.getLogger("ebft")


class OutputFolder:
    """`output_dir` and the files that a run writes there. `locked` gives access to change them."""

    PAGE = "report.html"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.evaluations = path / "evaluations.jsonl"
        self.metrics = path / "metrics.jsonl"
        self.uploaded = path / "hub.json"
        self.rollouts = path / "rollouts.jsonl"
        self.environment = path / "environment.jsonl"
        self.page = path / self.PAGE
        self.picture = path / "training.png"
        self.lengths = path / "by_length.png"

    @contextmanager
    def locked(self, *, overwrite: bool) -> Iterator[LockedFolder]:
        """Creates the folder and locks it, so that other processes do not write into it.

        Raises `UserError` if another process has locked it or it cannot be written.
        """
        # The kernel releases the lock when this process ends, even if it is killed.
        lock = FileLock(self.path / ".lock", timeout=0, fallback_to_soft=False)
        try:
            check_writable(self.path)
            lock.acquire()
        except Timeout as error:
            raise UserError(
                f"output_dir = {self.path}: another process is writing into it; "
                "wait for that run, or choose another folder"
            ) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise UserError(
                    f"output_dir = {self.path}: cannot be written: {error.strerror}"
                ) from error
            log.warning(
                "output_dir = %s: is on a file system without locks (%s); make sure that no other "
                "run writes into it",
                self.path, error.strerror,
            )  # fmt: skip
        try:
            yield LockedFolder(self.path, overwrite=overwrite)
        finally:
            lock.release()


class LockedFolder(OutputFolder):
    """An output folder that this process has locked.

    The checks refuse a folder that holds another run, before anything is loaded. `take` deletes
    the other run's files.
    """

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        super().__init__(path)
        self._overwrite = overwrite
        self._recipe, self._run_id = path / RECIPE, path / RUN_ID

    def check(self, *, resume: bool | None = None) -> None:
        """Raises `UserError` if the folder already holds a run.

        `resume` says whether that run is resumed; None for jobs that cannot resume.
        """
        if self._has_results() and not (self._overwrite or resume):
            resuming = "" if resume is None else "set checkpoint.resume=auto to resume that run, "
            raise UserError(
                f"output_dir = {self.path}: there is a run in that folder already; "
                f"choose another with output_dir=…, {resuming}or overwrite=true"
            )

    def check_restart(
        self,
        recipe: Mapping[str, Any],
        *,
        may_differ: Sequence[str],
        same_results: Sequence[str] = (),
    ) -> None:
        """Raises `UserError` if the folder holds a run with another recipe, except for keys that
        may differ and those that change results by rounding only.

        A run with the same recipe was stopped before its first checkpoint, and starts again.
        """
        if self._overwrite or not self._has_results():
            return
        existing, differ = self._existing_recipe(), "it has no recipe.yaml"
        if existing is not None:
            found = compare(existing, recipe, same_results=same_results).mathematics
            keys = [one.key for one in found if not is_below(one.key, may_differ)]
            if not keys:
                return
            differ = f"it differs in {', '.join(keys)}"
        raise UserError(
            f"output_dir = {self.path}: there is no checkpoint to resume from, and that folder "
            f"holds another run ({differ}); choose another with output_dir=…, or overwrite=true"
        )

    def check_overwritten(self, recipe: str) -> None:
        """Raises `UserError` if the folder holds a run of another kind of `recipe`, because a job
        overwrites only files of its own kind."""
        existing = self._existing_recipe()
        if self._has_results() and (existing is None or existing.get("recipe") != recipe):
            other = "no recipe.yaml" if existing is None else f"recipe = {existing.get('recipe')}"
            raise UserError(
                f"output_dir = {self.path}: there is a run of another kind in that folder "
                f"({other}), and recipe = {recipe} overwrites only its own kind; "
                "choose another with output_dir=…"
            )

    def _existing_recipe(self) -> dict[str, Any] | None:
        """The recipe of the run in the folder. Raises `UserError` if the file is damaged."""
        if not self._recipe.exists():
            return None
        try:
            check_regular(self._recipe)
        except ValueError as error:
            raise UserError(f"{self._recipe}: cannot be read: {error}") from error
        return read_yaml(self._recipe)

    def choose_id(self, *, resume: bool) -> str:
        """Returns the id of the run that is resumed, or a new one for a new run.

        Raises `UserError` if the file has no id in it.
        """
        if not (resume and self._run_id.exists()):
            return uuid4().hex[:12]
        try:
            found = read_text(self._run_id).strip()
        except ValueError as error:
            found = str(error)
        if re.fullmatch(r"[\w-]{1,64}", found, re.ASCII) is None:
            raise UserError(
                f"{self._run_id} is damaged: it has no id of letters, digits, - and _; delete it: "
                "metric loggers then begin a new run"
            )
        return found

    def _has_results(self) -> bool:
        """Whether the folder holds more of a run than its recipe: a checkpoint, a figure, a log."""
        if any(self.checkpoints.glob(f"{PREFIX}*")):
            return True  # a new run would resume from them, even if their recipe is lost
        appended = (self.evaluations, self.metrics)
        if any(file.exists() and not _is_empty(file) for file in appended):
            return True  # a new run would append to them
        if not self._recipe.exists():
            return False  # a run writes its recipe first, so there was none
        begun = (RECIPE, RUN_ID, ".lock", self.environment.name)
        files = (file for file in self.path.rglob("*") if file.name not in begun)
        return any(file.is_file() and not _is_empty(file) for file in files)

    def take(self, recipe: str, *, run_id: str | None = None, resume: bool = False) -> None:
        """Writes the resolved recipe, and the run's id if it has one.

        Without `resume`, removes the figures of the run before.
        """
        stale = [self.evaluations, self.metrics]
        if self._recipe.exists():
            stale += [self.rollouts, self.environment, self.page]
            stale += [self.picture, self.lengths, self.uploaded]
        for file in [] if resume else stale:
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise UserError(f"{file}: cannot be removed: {error.strerror}") from error
        write_whole(self._recipe, recipe)
        if run_id is not None:
            write_whole(self._run_id, run_id + "\n")


def _is_empty(file: Path) -> bool:
    """Whether it is an empty regular file."""
    return file.is_file() and file.stat().st_size == 0


class Start:
    """The step at which a run starts: 0, or that of the checkpoint that it resumes from.

    `resumed` is that checkpoint, or None, and `micro_batch` its number of documents at a time.
    `run_id` is the id of the run for metric loggers, in the main process. The
    main process, which has locked the `folder`, chooses the checkpoint, and the other processes
    resume from the same one. Raises `UserError` if the folder or the checkpoint cannot be used.
    """

    def __init__(
        self,
        options: FineTuneOptions,
        recipe: Mapping[str, Any],
        folder: LockedFolder | None,
        checkpoints: Checkpoints,
        processes: Processes,
    ) -> None:
        self._options, self._recipe = options, recipe
        self._folder, self._checkpoints, self._processes = folder, checkpoints, processes
        resumed = self._choose(options.checkpoint.resume) if processes.is_main else None
        chosen = processes.broadcast(None if resumed is None else str(resumed.folder))
        if not processes.is_main:
            resumed = self._choose(chosen)
        self.resumed = resumed
        self.step = 0 if resumed is None else resumed.step
        self.micro_batch = None if resumed is None else resumed.about.micro_batch
        resume = self._in_place(resumed)
        self.run_id = "" if folder is None else folder.choose_id(resume=resume)

    def check_room(self, size: int) -> None:
        """Raises `UserError` if the disk has no room for a checkpoint of `size` bytes, and warns if
        it has no room for as many as are kept at a time."""
        options = self._options.checkpoint
        left = self._options.training.steps - self.step
        if left == 0:
            return
        deleted = self._deleted(self.resumed)
        # The oldest is deleted after the newest is written, and two may be kept for the hub.
        most = options.keep + 1 + (options.best is not None) + 2 * (options.hub is not None)
        stay = len(self._checkpoints.saved()) - len(deleted)
        saves = 1 if options.every is None else ceil(left / options.every)
        wanted = max(1, min(saves, most - stay))
        check_room(
            self._options.output_dir, size,
            wanted=wanted, within=self._checkpoints.location, freed=deleted,
        )  # fmt: skip

    def take(self, recipe: str) -> None:
        """Prepares the output folder for the run; `recipe` is the resolved recipe.

        Deletes the checkpoints and logs of an overwritten run; of a resumed run those after its
        step. Called at the end of set-up, so that nothing is deleted if set-up fails.
        """
        folder, in_place = self._folder, self._in_place(self.resumed)
        if folder is None:  # the main process has locked it
            return
        if in_place:
            cut_metrics(folder.metrics, after=self.step)
            cut_rollouts(folder.rollouts, after=self.step)
        else:
            self._checkpoints.clear()
        folder.take(recipe, run_id=self.run_id, resume=in_place)
        if in_place and self.resumed is not None:
            self.resumed.drop_later(self._checkpoints)

    def _choose(self, resume: str | None) -> Resumption | None:
        wanted, same_results = self._options.checkpoint, self._options.same_results()
        resumed = find_resumption(
            resume,
            self._checkpoints,
            self._recipe,
            may_differ=wanted.may_differ,
            same_results=same_results,
            overwrite=self._options.overwrite,
            verified=not self._processes.is_main,  # the main process has verified it
        )
        if self._folder is not None:
            if wanted.resume == AUTO and resumed is None:
                self._folder.check_restart(
                    self._recipe, may_differ=wanted.may_differ, same_results=same_results
                )
            else:
                self._folder.check(resume=self._in_place(resumed))
            self._check_sources(resumed)
            self._checkpoints.clear_partial()
        return resumed

    def _check_sources(self, resumed: Resumption | None) -> None:
        """Raises `UserError` if the run starts from a checkpoint that `take` would delete."""
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
                    f"{key} = {value}: overwrite=true would delete it together with "
                    f"output_dir = {options.output_dir}; choose another output_dir, or copy it"
                )

    def _deleted(self, resumed: Resumption | None) -> list[Path]:
        """The checkpoints that `take` deletes."""
        own = self._checkpoints
        in_place = self._in_place(resumed)
        return own.after(resumed.folder) if resumed is not None and in_place else own.saved()

    def _in_place(self, resumed: Resumption | None) -> bool:
        """Whether the run resumes from a checkpoint in its own output folder."""
        return resumed is not None and self._checkpoints.contains(resumed.folder)
