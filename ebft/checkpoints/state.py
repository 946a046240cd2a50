"""The state of a run's machinery: everything that a step changes, beside the policy's weights.

Rollouts and the order of documents are pure functions of the step, so they have none.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebft.checkpoints.generators import gather_random, restore_random
from ebft.checkpoints.sharded import put_back
from ebft.errors import UserError
from ebft.stateful import Stateful

if TYPE_CHECKING:
    from collections.abc import Collection

    from ebft.training.machinery import Machinery

log = logging.getLogger("ebft")


def gather_state(m: Machinery) -> dict[str, Any]:
    """The state now. Its tensors are those in use, not copies."""
    return {
        "optimizer": m.optimizer.state_dict(),
        "lr_scheduler": m.lr_scheduler.state_dict(),
        **gather_before_update(m),
    }


def gather_before_update(m: Machinery) -> dict[str, Any]:
    """What of the state a step changes before it updates the policy."""
    return {
        "parts": {name: part.state_dict() for name, part in stateful_parts(m).items()},
        "random": gather_random(m.device),
    }


def restore_before_update(m: Machinery, before: Mapping[str, Any]) -> None:
    """Gives back what `gather_before_update` gathered."""
    for name, part in stateful_parts(m).items():
        _load(name, part, before["parts"][name])
    restore_random(before["random"], m.device)


def restore_state(
    m: Machinery,
    state: Mapping[str, Any],
    *,
    step: int,
    shards: Path,
    changed: Collection[str] = (),
) -> None:
    """Makes the machinery go on from `state`, that of `step` steps done.

    `shards` is where what is `Sharded` in it lies. `changed` are the recipe's keys that are not
    what they were: a part among them starts with fresh state, and with another optimizer or
    schedule the learning rate is what the new ones would have made it by now. Raises `UserError`
    for state that does not fit.
    """
    sections = {key.split(".")[0] for key in changed}
    for name, part in stateful_parts(m).items():
        if name.split(".")[0] in sections:
            log.warning("%s has changed; it starts with fresh state", name)
        elif name not in state["parts"]:
            raise UserError(f"{name} has state, and the checkpoint has none for it: another part?")
        else:
            _load(name, part, state["parts"][name])
    if sections.isdisjoint({"optimizer", "lr_scheduler"}):
        _load_optimizer(m, state["optimizer"], shards)
        _load("lr_scheduler", m.lr_scheduler, state["lr_scheduler"])
    else:
        replay_schedule(m, step)
        if "optimizer._component_" in changed:
            log.warning("optimizer has changed; its moments start anew")
        else:
            now = m.optimizer.state_dict()["param_groups"]
            _load_optimizer(m, {**state["optimizer"], "param_groups": now}, shards)
        log.warning("the learning rate goes on at %.4g", m.optimizer.param_groups[0]["lr"])
    with fits("the random generators"):
        restore_random(state["random"], m.device)


def named_parts(m: Machinery) -> dict[str, Any]:
    """The built parts by their keys in the recipe."""
    named: dict[str, Any] = {"plan": m.plan}
    if (parts := m.rollout_parts) is not None:
        named |= {
            "sampler": parts.sampler,
            "feature_map": parts.feature_map,
            **{f"transforms.{i}": transform for i, transform in enumerate(parts.transforms)},
            "reward": parts.reward,
            "baseline": parts.baseline,
        }
    return named


def stateful_parts(m: Machinery) -> dict[str, Stateful]:
    """The parts that remember something, by their keys in the recipe."""
    return {name: part for name, part in named_parts(m).items() if isinstance(part, Stateful)}


def replay_schedule(m: Machinery, steps: int) -> None:
    """Takes a schedule on to where it is after `steps` steps, without the optimizer's."""
    with warnings.catch_warnings():
        # torch warns, with reason, of a schedule that steps before its optimizer does.
        warnings.simplefilter("ignore", UserWarning)
        for _ in range(m.lr_scheduler.last_epoch, steps):
            m.lr_scheduler.step()


def _load(name: str, part: Any, state: Any) -> None:
    with fits(name):
        part.load_state_dict(state)


def _load_optimizer(m: Machinery, state: Mapping[str, Any], shards: Path) -> None:
    with fits("optimizer"):
        m.optimizer.load_state_dict(dict(put_back(state, m, shards)))


@contextmanager
def fits(name: str) -> Iterator[None]:
    """Raises `UserError` where state does not fit what it is restored to, of this name."""
    try:
        yield
    # What torch and Python raise for state of any other form.
    except (
        LookupError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError,
    ) as error:  # fmt: skip
        raise UserError(f"the checkpoint's state does not fit {name}: {error!r}") from error
