"""How the recipe of a checkpoint and the present one differ, and which of that matters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ebft.config.kinds import SAME_SCHEDULE
from ebft.mistakes import WORDS

NOT_OF_THE_RUN = ("output_dir", "overwrite", "plugins", "checkpoint", "metric_loggers")
"""Where things go, and what is kept of them."""
SAME_MATHEMATICS = (
    "require_unbiased",
    "model.device",
    "model.attention",
    "training.steps",
    "training.micro_batch",
    "training.gradient_checkpointing",
    "training.compile",
    "training.show_rollouts_every",
    "training.measure_gradients_every",
    "evaluation.every",
    "evaluation.remember",
    "parallel",
)
"""Results are the same to rounding."""
SCHEDULE = "lr_scheduler._component_"
ABSENT = "absent"


class Difference(NamedTuple):
    """A key whose value is another now."""

    key: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.before)} in the checkpoint, {_shown(self.now)} now"


class Compared(NamedTuple):
    """Differences that change the mathematics; those of a schedule that follows the number of
    steps; and those that change results by rounding alone."""

    mathematics: list[Difference]
    schedule: list[Difference]
    others: list[Difference]


def compare(before: Mapping[str, Any], now: Mapping[str, Any]) -> Compared:
    """Every key whose values differ in the two resolved recipes.

    A key of the schedule that was training.steps and still is goes with it: raising the number of
    steps is no other mathematics, though the schedule then ends later.
    """
    old, new = _flat(before), _flat(now)
    compared = Compared([], [], [])
    for key in sorted(old.keys() | new.keys()):
        difference = Difference(key, old.get(key, ABSENT), new.get(key, ABSENT))
        if difference.before == difference.now or is_below(key, NOT_OF_THE_RUN):
            continue
        if key == SCHEDULE and _schedule(difference.before) == _schedule(difference.now):
            continue
        follows_steps = key.startswith("lr_scheduler.") and (
            (difference.before, difference.now)
            == (old.get("training.steps"), new.get("training.steps"))
        )
        if follows_steps:
            compared.schedule.append(difference)
        elif is_below(key, SAME_MATHEMATICS):
            compared.others.append(difference)
        else:
            compared.mathematics.append(difference)
    return compared


def _schedule(path: Any) -> Any:
    return SAME_SCHEDULE.get(path, path)


def is_below(key: str, sections: Sequence[str]) -> bool:
    """Whether the key is one of the sections or in one."""
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        return {key: value}
    if not items:
        return {key: value}
    flat: dict[str, Any] = {}
    for name, item in items:
        flat |= _flat(item, f"{key}.{name}" if key else str(name))
    return flat


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return WORDS[value]
    return str(value)
