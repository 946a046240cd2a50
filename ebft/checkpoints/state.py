"""The state of the training loop: everything that a step changes except the policy's weights.

Rollouts and the order of documents are pure functions of the step, so they have no state. ebft does
not use the global random generators of torch, numpy and Python, but a plug-in may, so their states
are saved.
"""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from ebft.checkpoints.shards import insert_shards
from ebft.errors import UserError
from ebft.parts.stateful import Stateful

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch.optim import Optimizer

    from ebft.training.parts import LoopParts

log = logging.getLogger("ebft")


def gather_state(loop: LoopParts) -> dict[str, Any]:
    """The current state of the loop. Its tensors are not copied."""
    return {
        "optimizer": loop.optimizer.state_dict(),
        "lr_scheduler": loop.lr_scheduler.state_dict(),
        **gather_before_update(loop),
    }


def gather_before_update(loop: LoopParts) -> dict[str, Any]:
    """The part of the state that a step changes before it updates the policy."""
    return {
        "parts": {name: part.state_dict() for name, part in stateful_parts(loop).items()},
        "random": gather_random(loop.device),
    }


def restore_before_update(loop: LoopParts, before: Mapping[str, Any]) -> None:
    """Restores the state that `gather_before_update` returned."""
    for name, part in stateful_parts(loop).items():
        _load(name, part, before["parts"][name])
    restore_random(before["random"], loop.device)


def restore_state(
    loop: LoopParts,
    state: Mapping[str, Any],
    *,
    step: int,
    shards: Path,
    changed: Collection[str] = (),
) -> None:
    """Restores the loop to `state`, which was saved after `step` steps.

    `shards` is the folder with the tensors that are `Sharded` in `state`. `changed` are the keys of
    the recipe that have changed since. A changed part starts with fresh state. After a change of
    the optimizer or the schedule, the schedule sets the learning rate for this step. Raises
    `UserError` for state that does not fit.
    """
    sections = {key.split(".")[0] for key in changed}
    for name, part in stateful_parts(loop).items():
        if name.split(".")[0] in sections:
            log.warning("%s has changed; it starts with fresh state", name)
        elif name not in state["parts"]:
            raise UserError(
                f"{name} has state, but the checkpoint has none for it; use the part that the "
                "checkpoint was trained with"
            )
        else:
            _load(name, part, state["parts"][name])
    if sections.isdisjoint({"optimizer", "lr_scheduler"}):
        _load_optimizer(loop, state["optimizer"], shards)
        _load("lr_scheduler", loop.lr_scheduler, state["lr_scheduler"])
    else:
        replay_schedule(loop, step)
        if "optimizer._component_" in changed:
            log.warning("optimizer has changed; it starts with fresh state")
        else:
            now = loop.optimizer.state_dict()["param_groups"]
            _load_optimizer(loop, {**state["optimizer"], "param_groups": now}, shards)
        log.warning("the learning rate continues at %.4g", loop.optimizer.param_groups[0]["lr"])
    with must_fit("the random generators"):
        restore_random(state["random"], loop.device)


def named_parts(loop: LoopParts) -> dict[str, Any]:
    """The built parts by their keys in the recipe, without a feature map that no part uses."""
    named: dict[str, Any] = {"plan": loop.plan}
    if (parts := loop.rollout_parts) is not None:
        named |= {
            "sampler": parts.sampler,
            **({} if parts.feature_map is None else {"feature_map": parts.feature_map}),
            **{f"transforms.{i}": transform for i, transform in enumerate(parts.transforms)},
            "reward": parts.reward,
            "baseline": parts.baseline,
        }
    return named


def stateful_parts(loop: LoopParts) -> dict[str, Stateful]:
    """The parts that have state, by their keys in the recipe."""
    return {name: part for name, part in named_parts(loop).items() if isinstance(part, Stateful)}


def replay_schedule(loop: LoopParts, steps: int) -> None:
    """Steps the schedule until it has done `steps` steps, without stepping the optimizer."""
    with warnings.catch_warnings():
        # torch warns about a schedule that steps before its optimizer.
        warnings.simplefilter("ignore", UserWarning)
        for _ in range(loop.lr_scheduler.last_epoch, steps):
            loop.lr_scheduler.step()


def _load(name: str, part: Any, state: Any) -> None:
    with must_fit(name):
        part.load_state_dict(state)


def _load_optimizer(loop: LoopParts, state: Mapping[str, Any], shards: Path) -> None:
    with must_fit("optimizer"):
        loop.optimizer.load_state_dict(dict(insert_shards(state, loop, shards)))
        check_moments(loop.optimizer)


def check_moments(optimizer: Optimizer) -> None:
    """Raises `ValueError` for state that torch loads but that an update cannot use."""
    are_tensors: dict[str, bool] = {}
    state: Mapping[Any, Any] = optimizer.state
    for parameter, moments in state.items():
        if isinstance(parameter, int):
            raise ValueError(f"there is state for parameter {parameter}, which does not exist")
        if isinstance(parameter, Tensor):
            for name, value in moments.items():
                is_tensor = isinstance(value, Tensor)
                if are_tensors.setdefault(name, is_tensor) != is_tensor:
                    raise ValueError(f"{name} is a tensor for some parameters but not for all")


@contextmanager
def must_fit(name: str) -> Iterator[None]:
    """Raises `UserError`, naming `name`, for an error in loading state that does not fit."""
    try:
        yield
    # The errors that torch and Python raise for malformed state.
    except (
        LookupError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError,
    ) as error:  # fmt: skip
        raise UserError(f"the checkpoint's state does not fit {name}: {error!r}") from error


def gather_random(device: torch.device) -> dict[str, Any]:
    """The current states of the random generators, with those of CUDA if `device` is a GPU."""
    name, keys, *rest = cast(tuple[Any, ...], np.random.get_state(legacy=True))
    return {
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if device.type == "cuda" else [],
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *rest),
        "python": random.getstate(),
    }


def restore_random(state: Mapping[str, Any], device: torch.device) -> None:
    """Restores the states that `gather_random` returned.

    The generators of CUDA keep their states, with a warning, if the number of GPUs has changed.
    """
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and state["cuda"]:
        if len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda"])
        else:
            log.warning(
                "there are %d GPUs and there were %d: their random generators are not restored",
                torch.cuda.device_count(), len(state["cuda"]),
            )  # fmt: skip
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    random.setstate(state["python"])
