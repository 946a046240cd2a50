"""Finds the checkpoint that a run resumes from, and checks that it belongs to the same run."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebft.checkpoints.differences import Difference, compare, is_below
from ebft.checkpoints.folder import Checkpoints, remove, set_aside
from ebft.checkpoints.manifest import find_damage, with_retries
from ebft.checkpoints.snapshot import read_state, shards_of
from ebft.checkpoints.state import restore_state
from ebft.config.about import About, read_about
from ebft.errors import UserError
from ebft.models.export import load_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ebft.training.parts import LoopParts

log = logging.getLogger("ebft")

AUTO = "auto"
DIGESTS = {"base": "model", "train": "data", "held_out": "evaluation"}
"""The section of the recipe that each digest belongs to."""


@dataclass(frozen=True, slots=True)
class Resumption:
    """A verified checkpoint to resume from.

    `changed` are the keys that change the mathematics and differ, as `may_differ` permits.
    """

    folder: Path
    about: About
    changed: tuple[str, ...]
    may_differ: tuple[str, ...]

    @property
    def step(self) -> int:
        return self.about.step

    def check_digests(self, digests: Mapping[str, str]) -> None:
        """Raises `UserError` if the checkpoint is from another model or from other documents."""
        for name, section in DIGESTS.items():
            if digests[name] == self.about.digests.get(name) or self.allows(section):
                continue
            difference = Difference(section, self.about.digests.get(name), digests[name])
            raise _refusal(self.folder, [difference], "the content of its files has changed: ")

    def allows(self, section: str) -> bool:
        """Whether `may_differ` permits this section, or a key in it, to differ."""
        return is_below(section, self.may_differ) or any(
            is_below(key, [section]) for key in self.may_differ
        )

    def same_evaluation(self, digests: Mapping[str, str]) -> bool:
        """Whether the checkpoint's held-out figures can be compared with those measured now."""
        same_documents = digests["held_out"] == self.about.digests.get("held_out")
        return same_documents and not any(is_below(key, ["evaluation"]) for key in self.changed)

    def load_weights(self, policy: PreTrainedModel) -> None:
        """Loads the checkpoint's weights. Raises `UserError` if they do not fit the policy."""
        try:
            load_weights(policy, self.folder)
        except ValueError as error:
            raise UserError(f"checkpoint.resume: {error}") from error

    def drop_later(self, own: Checkpoints) -> None:
        """Deletes the run's own checkpoints after this one, the newest first."""
        for path in reversed(own.after(self.folder)):
            remove(path)

    def restore_loop(self, loop: LoopParts) -> dict[str, Any]:
        """Restores the loop and returns the whole state, for what else has to be restored."""
        try:
            state = read_state(self.folder)
            restore_state(
                loop, state,
                step=self.step, shards=shards_of(self.folder), changed=self.changed,
            )  # fmt: skip
        except (ValueError, KeyError) as error:
            raise UserError(f"checkpoint.resume = {self.folder}: {error}") from error
        log.info("resuming after step %d, from %s", self.step, self.folder)
        return state


def find_resumption(
    resume: str | None,
    own: Checkpoints,
    recipe: Mapping[str, Any],
    *,
    may_differ: tuple[str, ...],
    same_results: Sequence[str] = (),
    overwrite: bool,
    verified: bool = False,
) -> Resumption | None:
    """Finds the checkpoint that `checkpoint.resume` names; None to start from the beginning.

    `own` are the checkpoints of the recipe's output_dir, and `same_results` is as in `compare`.
    With `verified`, another process has checked the checkpoint: its checksums and later checkpoints
    are not checked again, because this process may see renamed folders late. Raises `UserError`
    if no checkpoint is whole, or if it has another format or belongs to a run with other
    mathematics, and `StorageError` if it cannot be read.
    """
    if resume is None:
        return None
    if resume == AUTO:
        folder = _newest(own, overwrite)
    else:
        folder = _named(Path(os.path.expanduser(resume)), verified)
    if folder is None:
        return None
    about = _about_of(folder)
    later = [] if verified else own.after(folder)
    if later and resume != AUTO and not overwrite:
        raise UserError(
            f"checkpoint.resume = {folder}: the run continued to {later[-1].name}, which would be "
            "lost; choose another output_dir, or set overwrite=true"
        )
    compared = compare(about.recipe, recipe, same_results=same_results)
    if refused := [d for d in compared.mathematics if not is_below(d.key, may_differ)]:
        raise _refusal(folder, refused)
    for difference in (*compared.mathematics, *compared.schedule, *compared.others):
        log.warning("resuming with a changed recipe: %s", difference)
    steps = recipe["training"]["steps"]
    if steps < about.step:
        raise UserError(
            f"training.steps = {steps}: the checkpoint {folder} has already done {about.step} "
            f"steps; set training.steps={about.step} or more"
        )
    changed = [d.key for d in (*compared.mathematics, *compared.schedule)]
    return Resumption(folder, about, tuple(changed), may_differ)


def _newest(own: Checkpoints, overwrite: bool) -> Path | None:
    """The newest whole checkpoint. Damaged ones are renamed, with a warning that says why."""
    damage: dict[Path, str] = {}
    for folder in reversed(own.saved()):
        problem = _damage_of(folder)
        if problem is None:
            for skipped, why in damage.items():
                log.warning("skipped %s: %s; it is now %s", skipped, why, set_aside(skipped))
            return folder
        damage[folder] = problem
    if damage and not overwrite:
        listed = "; ".join(f"{folder}: {why}" for folder, why in damage.items())
        raise UserError(
            f"checkpoint.resume = {AUTO}: no checkpoint is whole ({listed}); to start again from "
            "the beginning, set overwrite=true or delete them"
        )
    for folder, why in damage.items():
        log.warning("cannot resume from %s: %s", folder, why)
    log.info("no checkpoint to resume; starting from the beginning")
    return None


def _named(folder: Path, verified: bool) -> Path:
    if not folder.is_dir():
        raise UserError(
            f"checkpoint.resume = {folder}: no such folder; give {AUTO}, or a checkpoint such as "
            "runs/ebft_full/checkpoints/step-000020"
        )
    if not verified and (damage := _damage_of(folder)):
        raise UserError(f"checkpoint.resume = {folder}: {damage}; give another checkpoint")
    return folder


def _damage_of(folder: Path) -> str | None:
    """Describes the damage of a checkpoint. Raises `StorageError` if it cannot be read."""
    return with_retries(partial(find_damage, folder))


def _about_of(folder: Path) -> About:
    """Reads which run a checkpoint belongs to.

    Raises `UserError` if it has another format or is damaged, and `StorageError` if it cannot be
    read.
    """
    try:
        return with_retries(partial(read_about, folder))
    except ValueError as error:
        raise UserError(
            f"checkpoint.resume = {folder}: {error}; or choose another checkpoint or output_dir"
        ) from error


def _refusal(folder: Path, differences: list[Difference], why: str = "") -> UserError:
    keys = ",".join(difference.key for difference in differences)
    return UserError(
        *(f"checkpoint.resume = {folder}: {why}{d}" for d in differences),
        f"this is a different run; to resume it anyway, set checkpoint.may_differ=[{keys}]",
    )
