"""The optimizers and schedules that most recipes name, with arguments that need no trial.

To check the arguments of another package's class, the class has to be imported and tried, which
takes seconds. Arguments within the bounds below are accepted without: every tested version of the
class accepts them. All other arguments, also right ones, are checked with the class itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Check = Callable[[Any], bool]


class Usual(NamedTuple):
    """A class's arguments by name, each with the bounds of what is accepted without a trial."""

    checks: Mapping[str, Check]
    required: frozenset[str] = frozenset()

    def accepts(self, arguments: Mapping[str, Any]) -> bool:
        """Whether all arguments are within the bounds, and none of `required` is missing."""
        return self.required <= arguments.keys() <= self.checks.keys() and all(
            self.checks[name](value) for name, value in arguments.items()
        )


SMALL, LARGE = 1e-12, 10.0
"""Bounds of numbers. Beyond them, rounding to 0 or infinity is a matter for the class itself."""


def _is_number(value: Any) -> bool:
    # Not an integer: torch wants betas to be floats.
    return type(value) is float and SMALL <= value <= LARGE


def _is_weight_decay(value: Any) -> bool:
    return type(value) is float and (value == 0.0 or _is_number(value))


def _are_betas(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(_is_number(beta) and beta < 0.99999 for beta in value)
    )


def _is_factor(value: Any) -> bool:
    return _is_number(value) and value <= 1.0


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


ADAM = Usual(
    {
        "lr": _is_number,
        "betas": _are_betas,
        "eps": _is_number,
        "weight_decay": _is_weight_decay,
        "fused": _is_flag,
    }
)
OPTIMIZERS: Mapping[str, Usual] = {"torch.optim.Adam": ADAM, "torch.optim.AdamW": ADAM}
STEPS = ("num_warmup_steps", "num_training_steps")
SCHEDULES: Mapping[str, Usual] = {
    "transformers.get_cosine_schedule_with_warmup": Usual(
        dict.fromkeys(STEPS, _is_count), frozenset(STEPS)
    ),
    "torch.optim.lr_scheduler.LinearLR": Usual(
        {"start_factor": _is_factor, "total_iters": _is_count}
    ),
}
