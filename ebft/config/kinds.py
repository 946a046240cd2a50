"""The kinds of classes that a recipe names by dotted paths: optimizers, schedules, loggers."""

from __future__ import annotations

import inspect
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ebft.config.component import Component
from ebft.errors import UserError

SCHEDULES = ("torchtune.training.lr_schedulers", "transformers.optimization")
"""Modules of functions `get_…schedule…` that make a schedule; other schedules are classes."""


class OptimizerComponent(Component):
    """An optimizer of the policy's weights."""

    wanted = "an optimizer: a subclass of torch.optim.Optimizer"

    @classmethod
    def accepts(cls, found: object) -> bool:
        return isinstance(found, type) and issubclass(found, Optimizer)


class ScheduleComponent(Component):
    """A schedule of the learning rate, which depends only on the step."""

    wanted = (
        "a schedule without measurements: a subclass of torch.optim.lr_scheduler.LRScheduler"
        f", or a function of {' or '.join(SCHEDULES)}"
    )

    @classmethod
    def accepts(cls, found: object) -> bool:
        if isinstance(found, type):
            return cls._steps_by_number(found)
        return (  # their return type is only known after the call
            inspect.isfunction(found)
            and found.__module__ in SCHEDULES
            and found.__name__.startswith("get_")
            and "schedule" in found.__name__
        )

    def instantiate(self, *args: Any, **more: Any) -> LRScheduler:
        """Like `Component.instantiate`. Raises `UserError` for a schedule that needs a metric."""
        schedule = super().instantiate(*args, **more)
        if not self._steps_by_number(type(schedule)):
            raise UserError(
                f"{self.path}: depends on a measurement, and the loop steps a schedule only by "
                f"number; choose another, such as {SCHEDULES[0]}.get_cosine_schedule_with_warmup"
            )
        return schedule  # type: ignore[no-any-return]

    @staticmethod
    def _steps_by_number(kind: type) -> bool:
        return issubclass(kind, LRScheduler) and not issubclass(kind, ReduceLROnPlateau)


class LoggerComponent(Component):
    """A metric logger."""

    wanted = "a metric logger: a class with the methods `log_dict` and `close`"

    @classmethod
    def accepts(cls, found: object) -> bool:
        return isinstance(found, type) and all(
            inspect.isfunction(inspect.getattr_static(found, method, None))
            for method in ("log_dict", "close")
        )
