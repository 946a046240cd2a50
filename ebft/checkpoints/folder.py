"""The folder of a run's checkpoints: each appears whole or not at all, and is kept by policy."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

from ebft.checkpoints.manifest import with_retries, write_manifest
from ebft.distributed.processes import ONE_PROCESS, Processes
from ebft.errors import StorageError

PREFIX = "step-"
PARTIAL = ".partial"
DAMAGED = ".damaged"


class Contents(Protocol):
    """What a checkpoint is made of; `size` is about how many bytes it takes.

    `write_part` is called in every process, and then `write` in the main one.
    """

    def write_part(self, folder: Path) -> None: ...

    def write(self, folder: Path) -> None: ...

    @property
    def size(self) -> int: ...


class Checkpoints:
    """The checkpoints of a run: `folder/step-000020` and the like.

    A checkpoint is written beside its final name and renamed when every byte is on disk, and
    renamed before it is deleted. So a folder named `step-…` is whole, even if a crash interrupts
    either.
    """

    def __init__(
        self, folder: Path, *, keep: int, best: Literal["lowest", "highest"] = "lowest"
    ) -> None:
        self._folder, self._keep, self._best = folder, keep, best

    def save(
        self,
        contents: Contents,
        *,
        step: int,
        scores: Mapping[int, float] | None = None,
        processes: Processes = ONE_PROCESS,
    ) -> Path:
        """Writes the checkpoint of `step`, then drops what the policy does not keep (`kept`).

        A checkpoint of that step that is there already is left as it is: the same step of a run
        has the same state. Raises `StorageError` if it cannot be written; earlier checkpoints are
        not touched then. Of several processes all are to call it.
        """
        final = self._folder / f"{PREFIX}{step:06d}"
        # The main one's eyes count: others may see its folder late.
        if not processes.any(processes.is_main and final.exists()):
            self._write(contents, final, step, processes)
        if not processes.is_main:
            return final
        steps = {_step(path): path for path in self.saved()}
        kept = kept_steps(list(steps), self._keep, scores or {}, self._best)
        for old in steps.keys() - kept:
            remove(steps[old])
        return final

    def saved(self) -> list[Path]:
        """The checkpoints there are, oldest first. Raises `StorageError` if that cannot be seen."""

        def there() -> list[Path]:
            try:
                return list(self._folder.iterdir())  # `glob` may find none and not say why
            except FileNotFoundError:
                return []

        return sorted(filter(_is_ours, with_retries(there)), key=_step)

    @property
    def place(self) -> Path:
        """The folder, perhaps a link to another disk; before there is one, where it will be."""
        return self._folder if self._folder.exists() else self._folder.parent

    def holds(self, checkpoint: Path) -> bool:
        """Whether it is one of these, however its path is spelt."""
        return checkpoint.resolve() in [path.resolve() for path in self.saved()]

    def clear(self) -> None:
        """Deletes all of them, the newest first: if a crash interrupts that, the remaining ones are
        the oldest, and whole. Raises `StorageError` if one cannot be deleted."""
        for path in reversed(self.saved()):
            try:
                remove(path)
            except OSError as error:
                raise StorageError(
                    f"cannot delete the checkpoint {path}: {error.strerror}; a new run would take "
                    "it for its own, so delete it, or choose another output_dir"
                ) from error

    def clear_partial(self) -> None:
        """Removes what a killed process has left half-written or half-deleted."""
        for path in self._folder.glob(f"{PREFIX}*{PARTIAL}"):
            shutil.rmtree(path, ignore_errors=True)

    def _write(self, contents: Contents, final: Path, step: int, processes: Processes) -> None:
        partial = final.with_name(final.name + PARTIAL)
        try:
            if processes.is_main:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
            processes.any(False)  # the others wait until the folder is there
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
        there = self.place
        free = shutil.disk_usage(there).free / 2**30 if there.exists() else 0.0
        kept = "there is none before it"
        try:
            if earlier := self.saved():
                kept = f"the checkpoint before it is whole: {earlier[-1]}"
        except StorageError as unseen:
            kept = str(unseen)
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
    """The newest `keep` of the steps, and the one with the best score if any has one."""
    kept = set(sorted(steps)[-keep:])
    scored = [step for step in steps if step in scores]
    if scored:
        choose = min if best == "lowest" else max
        kept.add(choose(scored, key=lambda step: scores[step]))
    return kept


def set_aside(checkpoint: Path) -> Path:
    """Renames a damaged checkpoint, so that it counts as none; returns where it is now."""
    aside = checkpoint.with_name(checkpoint.name + DAMAGED)
    shutil.rmtree(aside, ignore_errors=True)
    return checkpoint.rename(aside)


def remove(checkpoint: Path) -> None:
    """Deletes a checkpoint. If a crash interrupts that, the rest is not taken for a checkpoint."""
    partial = checkpoint.with_name(checkpoint.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    checkpoint.rename(partial)
    # Of a file that another process still reads, some file systems keep a remnant; `clear_partial`
    # sees to it later.
    shutil.rmtree(partial, ignore_errors=True)


def flush_to_disk(path: Path) -> None:
    """fsync of a file or folder: a rename may otherwise reach the disk before the contents."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_ours(path: Path) -> bool:
    """Not a copy that somebody has put beside them, `step-000020-good` and the like."""
    return path.name.startswith(PREFIX) and path.name.removeprefix(PREFIX).isdecimal()


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix(PREFIX))
