"""Whether a checkpoint is whole, of this version's format, or not to be read at the moment.

Three things that end otherwise: a damaged one is passed over; one of another format is the user's
to deal with; and of one that the file system does not give out now, nothing is known.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ebft.checkpoints.manifest import find_damage
from ebft.checkpoints.retry import with_retries
from ebft.checkpoints.snapshot import About, read_about
from ebft.errors import UserError


def damage_of(folder: Path) -> str | None:
    """What is damaged in a checkpoint; None if its files are those that were written.

    Raises `StorageError` if they cannot be read.
    """
    return with_retries(partial(find_damage, folder))


def about_of(folder: Path) -> About:
    """Which run a whole checkpoint is of.

    Raises `UserError` if it is of another format or not as a run writes it, and `StorageError` if
    it cannot be read.
    """
    try:
        return with_retries(partial(read_about, folder))
    except ValueError as error:
        raise UserError(
            f"checkpoint.resume = {folder}: {error}; or choose another checkpoint or output_dir"
        ) from error
