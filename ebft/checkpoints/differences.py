"""Compares the recipe of a checkpoint with the current one, and sorts the differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ebft.config.class_kinds import SAME_SCHEDULE
from ebft.errors import WORDS

NOT_OF_THE_RUN = ("output_dir", "overwrite", "plugins", "checkpoint", "metric_loggers")
"""Sections that say where output goes and what is kept."""
SAME_MATHEMATICS = (
    "require_unbiased",
    "model.device",
    "model.attention",
    "training.steps",
    "training.micro_batch",
    "training.gradient_checkpointing",
    "training.keep_logits",
    "training.compile",
    "training.show_rollouts_every",
    "training.measure_gradients_every",
    "evaluation.every",
    "evaluation.remember",
    "parallel",
)
"""Keys and sections that change results by rounding only."""
SCHEDULE = "lr_scheduler._component_"
ABSENT = "absent"


class Difference(NamedTuple):
    """A key whose value has changed."""

    key: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key}: {_quoted(self.before)} in the checkpoint, {_quoted(self.now)} now"


class Compared(NamedTuple):
    """Differences that change the mathematics, differences of a schedule that follows the number of
    steps, and differences that change results by rounding only."""

    mathematics: list[Difference]
    schedule: list[Difference]
    others: list[Difference]


def compare(
    before: Mapping[str, Any], now: Mapping[str, Any], *, same_results: Sequence[str] = ()
) -> Compared:
    """Compares two resolved recipes key by key.

    `same_results` are keys of parts' options that change results by rounding only.

    A key that one recipe does not have is null in the other if ebft got the option later and the
    recipe does not use it: that is no difference. A key of the schedule that equals
    `training.steps` in both recipes follows it. To raise the number of steps does not count as
    different mathematics, although the schedule then ends later.
    """
    old, new = _flat(before), _flat(now)
    compared = Compared([], [], [])
    for key in sorted(old.keys() | new.keys()):
        difference = Difference(key, old.get(key, ABSENT), new.get(key, ABSENT))
        if difference.before == difference.now or is_below(key, NOT_OF_THE_RUN):
            continue
        if difference[1:] in ((ABSENT, None), (None, ABSENT)):
            continue
        if key == SCHEDULE and _schedule(difference.before) == _schedule(difference.now):
            continue
        follows_steps = key.startswith("lr_scheduler.") and (
            (difference.before, difference.now)
            == (old.get("training.steps"), new.get("training.steps"))
        )
        if follows_steps:
            compared.schedule.append(difference)
        elif is_below(key, (*SAME_MATHEMATICS, *same_results)):
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


def _quoted(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return WORDS[value]
    return str(value)
