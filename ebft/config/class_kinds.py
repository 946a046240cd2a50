"""The kinds of classes that a recipe names by dotted paths: optimizers, schedules, loggers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from ebft.config import usual
from ebft.config.component import Component
from ebft.errors import UserError
from ebft.lazy import torch

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LRScheduler

SCHEDULES = ("transformers.optimization", "torchtune.training.lr_schedulers")
"""Modules of functions `get_…schedule…` that make a schedule; other schedules are classes."""
COSINE = "transformers.get_cosine_schedule_with_warmup"
SAME_SCHEDULE: Mapping[str, str] = MappingProxyType(
    {
        "torchtune.training.get_cosine_schedule_with_warmup": COSINE,
        "torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup": COSINE,
        "transformers.optimization.get_cosine_schedule_with_warmup": COSINE,
    }
)
"""Paths of schedules whose learning rates are, bit for bit, those of the one at another path."""
SAME_LOGGER: Mapping[str, str] = MappingProxyType(
    {
        f"torchtune.training.metric_logging.{name}": f"ebft.report.loggers.{name}"
        for name in ("TensorBoardLogger", "WandBLogger")
    }
)
"""torchtune's loggers by which recipes of earlier versions named what ebft has itself now."""


class OptimizerComponent(Component):
    """An optimizer of the policy's weights."""

    wanted = "an optimizer: a subclass of torch.optim.Optimizer"
    usual = usual.OPTIMIZERS

    @classmethod
    def accepts(cls, found: object) -> bool:
        return isinstance(found, type) and issubclass(found, torch.optim.Optimizer)


class ScheduleComponent(Component):
    """A schedule of the learning rate, which depends only on the step."""

    wanted = (
        "a schedule without measurements: a subclass of torch.optim.lr_scheduler.LRScheduler"
        f", or a function of {' or '.join(SCHEDULES)}"
    )
    instead: ClassVar[Mapping[str, str]] = SAME_SCHEDULE
    usual = usual.SCHEDULES

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
                f"number; choose another, such as {COSINE}"
            )
        return schedule  # type: ignore[no-any-return]

    @staticmethod
    def _steps_by_number(kind: type) -> bool:
        schedules = torch.optim.lr_scheduler
        return issubclass(kind, schedules.LRScheduler) and not issubclass(
            kind, schedules.ReduceLROnPlateau
        )


class LoggerComponent(Component):
    """A metric logger."""

    wanted = "a metric logger: a class with the methods `log_dict` and `close`"
    instead: ClassVar[Mapping[str, str]] = SAME_LOGGER

    @classmethod
    def accepts(cls, found: object) -> bool:
        return isinstance(found, type) and all(
            inspect.isfunction(inspect.getattr_static(found, method, None))
            for method in ("log_dict", "close")
        )
