"""Checkpoints: HF folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ebft.errors import StorageError
from ebft.models.export import save_policy

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PREFIX = "step-"
PARTIAL = ".partial"


class Checkpoints:
    """The checkpoints of a run: `folder/step-000020` and the like, the newest `keep` of them.

    A checkpoint is written beside its final name and renamed when every byte is on disk, so
    whatever interrupts the writing, folders named `step-…` load with `from_pretrained`.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder, self._keep = folder, keep

    def save(
        self, policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, step: int
    ) -> Path:
        """Writes the policy after `step` optimizer steps and drops the oldest beyond `keep`.

        Raises `StorageError` if it cannot be written; earlier checkpoints are not touched then.
        """
        final = self._folder / f"{PREFIX}{step:06d}"
        partial = final.with_name(final.name + PARTIAL)
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            save_policy(policy, tokenizer, partial)
            for file in partial.iterdir():
                flush_to_disk(file)
            flush_to_disk(partial)
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
            flush_to_disk(self._folder)
        except Exception as error:  # safetensors reports a full disk with an exception of its own
            shutil.rmtree(partial, ignore_errors=True)
            raise StorageError(self._explain(error, policy, step)) from error
        for old in self.saved()[: -self._keep]:
            shutil.rmtree(old)
        return final

    def saved(self) -> list[Path]:
        """The whole checkpoints there are, oldest first."""
        found = self._folder.glob(f"{PREFIX}*")
        return sorted(path for path in found if not path.name.endswith(PARTIAL))

    def _explain(self, error: Exception, policy: PreTrainedModel, step: int) -> str:
        size = sum(p.numel() * p.element_size() for p in policy.parameters()) / 2**30
        there = self._folder if self._folder.exists() else self._folder.parent
        free = shutil.disk_usage(there).free / 2**30 if there.exists() else 0.0
        earlier = self.saved()
        kept = (
            f"the checkpoint before it is whole: {earlier[-1]}"
            if earlier
            else "there is none before it"
        )
        return (
            f"cannot save the checkpoint of step {step} in {self._folder}: {error} "
            f"(it takes {size:.2f} GiB; {free:.2f} GiB are free); {kept}"
        )


def flush_to_disk(path: Path) -> None:
    """fsync of a file or folder: a rename may otherwise reach the disk before the contents."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
