"""The folder of a run's checkpoints: writes them atomically, and deletes old ones."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

from ebft.checkpoints.manifest import with_retries, write_manifest
from ebft.distributed.processes import ONE_PROCESS, Processes
from ebft.errors import StorageError

PREFIX = "step-"
PARTIAL = ".partial"
DAMAGED = ".damaged"


class Contents(Protocol):
    """The contents of a checkpoint; `size` is its approximate number of bytes.

    `write_part` is called in every process, and then `write` in the main process.
    """

    def write_part(self, folder: Path) -> None: ...

    def write(self, folder: Path) -> None: ...

    @property
    def size(self) -> int: ...


def folder_name(step: int) -> str:
    """Returns the name of the folder of a step's checkpoint."""
    return f"{PREFIX}{step:06d}"


class Checkpoints:
    """The checkpoints of a run, such as `folder/step-000020`.

    A checkpoint is written under a temporary name and renamed when every byte is on disk. Before it
    is deleted it is renamed again. So a folder named `step-…` is whole, even after a crash.
    """

    def __init__(
        self, folder: Path, *, keep: int, best: Literal["lowest", "highest"] = "lowest"
    ) -> None:
        self._folder, self._keep, self._best = folder, keep, best
        self._held, self._old = set[Path](), set[Path]()

    def save(
        self,
        contents: Contents,
        *,
        step: int,
        scores: Mapping[int, float] | None = None,
        processes: Processes = ONE_PROCESS,
    ) -> Path:
        """Writes the checkpoint of `step`, then deletes those not held and not in `kept_steps`.

        An existing checkpoint of that step is left as it is, because the same step of a run has the
        same state. Every process must call this method. Raises `StorageError` if the checkpoint
        cannot be written; earlier checkpoints then stay as they are.
        """
        final = self._folder / folder_name(step)
        # Only the main process looks: the others may see a new folder late.
        if not processes.any(processes.is_main and final.exists()):
            self._write(contents, final, step, processes)
        if not processes.is_main:
            return final
        steps = {step_of(path): path for path in self.saved()}
        kept = kept_steps(list(steps), self._keep, scores or {}, self._best)
        self._old = {steps[old] for old in steps.keys() - kept}
        for old in self._old - self._held:
            remove(old)
        return final

    def hold(self, checkpoints: Collection[Path]) -> None:
        """Keeps these checkpoints, which are being read, instead of those that were held before.

        Of the latter, those are deleted that `save` would have deleted.
        """
        released, self._held = self._held - set(checkpoints), set(checkpoints)
        for old in released & self._old:
            remove(old)

    def saved(self) -> list[Path]:
        """The checkpoints, oldest first. Raises `StorageError` if the folder cannot be read."""

        def entries() -> list[Path]:
            try:
                return list(self._folder.iterdir())  # `glob` hides errors
            except FileNotFoundError:
                return []

        return sorted(filter(_is_checkpoint, with_retries(entries)), key=step_of)

    @property
    def location(self) -> Path:
        """An existing folder on the checkpoints' disk: their folder, or the one it will be made in.

        The folder may be a link to another disk.
        """
        return self._folder if self._folder.exists() else self._folder.parent

    def contains(self, checkpoint: Path) -> bool:
        """Whether the path leads to one of these checkpoints."""
        return checkpoint.resolve() in [path.resolve() for path in self.saved()]

    def after(self, checkpoint: Path) -> list[Path]:
        """The later checkpoints; empty if `checkpoint` is not one of these checkpoints."""
        saved = self.saved()
        resolved = [path.resolve() for path in saved]
        here = checkpoint.resolve()
        return saved[resolved.index(here) + 1 :] if here in resolved else []

    def clear(self) -> None:
        """Deletes all checkpoints, the newest first. After a crash the oldest are left, and whole.

        Raises `StorageError` if one cannot be deleted.
        """
        for path in reversed(self.saved()):
            try:
                remove(path)
            except OSError as error:
                raise StorageError(
                    f"cannot delete the checkpoint {path}: {error.strerror}; a new run would "
                    "resume from it, so delete it, or choose another output_dir"
                ) from error

    def clear_partial(self) -> None:
        """Removes checkpoints that a killed process left half written or half deleted."""
        for path in self._folder.glob(f"{PREFIX}*{PARTIAL}"):
            shutil.rmtree(path, ignore_errors=True)

    def _write(self, contents: Contents, final: Path, step: int, processes: Processes) -> None:
        partial = final.with_name(final.name + PARTIAL)
        try:
            if processes.is_main:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
            processes.any(False)  # the other processes wait until the folder exists
            contents.write_part(partial)
            if not processes.is_main:
                return
            contents.write(partial)
            write_manifest(partial)
            for path in partial.rglob("*"):
                flush_to_disk(path)
            flush_to_disk(partial)
            partial.rename(final)
            flush_to_disk(self._folder)
        except Exception as error:  # safetensors reports a full disk with an exception of its own
            if processes.is_main:
                shutil.rmtree(partial, ignore_errors=True)
            raise StorageError(self._explain(error, contents.size, step)) from error

    def _explain(self, error: Exception, size: int, step: int) -> str:
        location = self.location
        free = shutil.disk_usage(location).free / 2**30 if location.exists() else 0.0
        kept = "there is no earlier one"
        try:
            if earlier := self.saved():
                kept = f"the checkpoint before it is whole: {earlier[-1]}"
        except StorageError as unreadable:
            kept = str(unreadable)
        return (
            f"cannot save the checkpoint of step {step} in {self._folder}: {error} "
            f"(it takes {size / 2**30:.2f} GiB; {free:.2f} GiB are free); {kept}"
        )


def kept_steps(
    steps: Sequence[int],
    keep: int,
    scores: Mapping[int, float],
    best: Literal["lowest", "highest"],
) -> set[int]:
    """The newest `keep` of the steps, and the one with the best score, if any has a score."""
    kept = set(sorted(steps)[-keep:])
    scored = [step for step in steps if step in scores]
    if scored:
        choose = min if best == "lowest" else max
        kept.add(choose(scored, key=lambda step: scores[step]))
    return kept


def set_aside(checkpoint: Path) -> Path:
    """Renames a damaged checkpoint, so that no run resumes from it, and returns its new path."""
    aside = checkpoint.with_name(checkpoint.name + DAMAGED)
    shutil.rmtree(aside, ignore_errors=True)
    return checkpoint.rename(aside)


def remove(checkpoint: Path) -> None:
    """Renames a checkpoint and deletes it, so that a crash leaves no damaged checkpoint."""
    partial = checkpoint.with_name(checkpoint.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    checkpoint.rename(partial)
    # Some file systems keep a file that another process still reads; `clear_partial` removes it
    # later.
    shutil.rmtree(partial, ignore_errors=True)


def flush_to_disk(path: Path) -> None:
    """Calls fsync on a file or folder: otherwise a rename may reach the disk before contents."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_checkpoint(path: Path) -> bool:
    """Whether it is a checkpoint, and not a user's copy such as `step-000020-good`."""
    return path.name.startswith(PREFIX) and path.name.removeprefix(PREFIX).isdecimal()


def step_of(checkpoint: Path) -> int:
    """Returns the step in the name of a checkpoint's folder."""
    return int(checkpoint.name.removeprefix(PREFIX))
