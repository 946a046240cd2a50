"""Checks before training whether a run's checkpoints fit on the disk."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from torch.optim import Adam, Adamax, AdamW, NAdam, RAdam

from ebft.checkpoints.snapshot import saved_weights
from ebft.errors import UserError

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from transformers import PreTrainedModel

TWO_MOMENTS = (Adam, Adamax, AdamW, NAdam, RAdam)
"""Optimizers that keep two values for each weight; for others the size is known after a step."""
GIB = 2**30

log = logging.getLogger("ebft")


def least_size(policy: PreTrainedModel, optimizer: Optimizer, *, merge_adapter: bool) -> int:
    """The least number of bytes of a checkpoint: its weights, and the moments of Adam."""
    tensors = list(saved_weights(policy, merge_adapter=merge_adapter))
    if isinstance(optimizer, TWO_MOMENTS):
        tensors += 2 * [weight for group in optimizer.param_groups for weight in group["params"]]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def check_room(
    folder: Path, size: int, *, wanted: int, within: Path, freed: Iterable[Path] = ()
) -> None:
    """Raises `UserError` if the disk has no room for one more checkpoint of `size` bytes, and warns
    if it has no room for `wanted` ones.

    `folder` is the output folder, `within` is on the disk of the checkpoints, and `freed` are
    checkpoints that will be deleted first.
    """
    disk = shutil.disk_usage(within)
    if disk.total == 0:  # the file system does not report its size
        return
    free = disk.free + sum(map(_bytes_in, freed))
    if size > free:
        raise UserError(
            f"output_dir = {folder}: a checkpoint takes {size / GIB:.2f} GiB or more, and "
            f"{free / GIB:.2f} GiB are free there; make room, or choose another folder"
        )
    if size * wanted > free:
        log.warning(
            "output_dir = %s: %d more checkpoints of %.2f GiB or more will be kept at a time, and "
            "%.2f GiB are free; make room, or set checkpoint.keep lower",
            folder, wanted, size / GIB, free / GIB,
        )  # fmt: skip


def _bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
