"""Tries a recipe's optimizer and schedule on a small weight before anything is loaded."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import isfinite
from typing import TYPE_CHECKING

from ebft.errors import UserError, first_line
from ebft.lazy import torch

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from ebft.config.class_kinds import OptimizerComponent, ScheduleComponent
    from ebft.config.component import Component

TRIED = ("torch.", "torchao.", "transformers.")
"""Modules whose optimizers are tried; those of others may need a real model, or a GPU."""
SIDE = 64
"""Rows and columns of the weight; 8-bit optimizers do not quantize the state of smaller weights."""
MOST_STEPS = 10_000
"""The number of steps that a schedule is tried for, in 20 ms; of a longer run also the last."""
INSTEAD = "use another, such as torch.optim.AdamW"


def optimizer_problems(component: OptimizerComponent, device: str) -> Iterator[str]:
    """Updates a small weight once, and checks that a checkpoint can hold the optimizer's state.

    Optimizers of modules other than `TRIED` are not tried, and neither are usual arguments.
    """
    if component.is_usual() or not component.path.startswith(TRIED):
        return
    with _collecting("optimizer", component, INSTEAD) as problems:
        _update(component.instantiate([_weight()]), device)
    yield from problems


def schedule_problems(
    schedule: ScheduleComponent | None, component: OptimizerComponent, steps: int
) -> Iterator[str]:
    """Runs the schedule for as many steps as the run has, unless it and the optimizer are usual."""
    if schedule is None or (schedule.is_usual() and component.is_usual()):
        return
    optimizer: Optimizer = torch.optim.AdamW([_weight()])
    if component.path.startswith(TRIED):  # a schedule may set options that only its optimizer has
        with suppress(Exception):  # reported by `optimizer_problems`
            optimizer = component.instantiate([_weight()])
    with _collecting("lr_scheduler", schedule, f"the run has {steps} steps") as problems:
        _step(schedule.instantiate(optimizer), steps)
    yield from problems


@contextmanager
def _collecting(key: str, component: Component, remedy: str) -> Iterator[list[str]]:
    """Collects an error as a line that names the key and the remedy."""
    problems: list[str] = []
    try:
        yield problems
    except UserError as error:
        problems.append(f"{key}: {error}")
    except Exception as error:  # wrong arguments may raise any error
        what = f"{type(error).__name__}: {first_line(error)}"
        problems.append(f"{key}: {component.call()}: {what}; {remedy}")


def _weight() -> torch.nn.Parameter:
    weight = torch.nn.Parameter(torch.zeros(SIDE, SIDE))
    weight.grad = torch.zeros(SIDE, SIDE)
    return weight


def _update(optimizer: Optimizer, device: str) -> None:
    from ebft.checkpoints.nested import check_nested
    from ebft.models.options import resolve_device

    try:
        with torch.compiler.set_stance("force_eager"):  # compiling takes half a minute
            optimizer.step()
        check_nested(optimizer.state_dict()["state"])
    except (AssertionError, RuntimeError) as error:
        # `capturable` asserts that weights are on a GPU, which is right if the run is on one. A
        # build for GPUs asks for a driver instead.
        no_driver = torch.version.cuda is not None and torch.cuda.device_count() == 0
        if isinstance(error, RuntimeError) and not no_driver:
            raise
        with suppress(UserError):  # a GPU that is not on this machine
            if resolve_device(device).type == "cpu":
                raise


def _step(schedule: LRScheduler, steps: int) -> None:
    """Steps a schedule to the end of the run. Raises its errors, and `ValueError` for a learning
    rate that is not a finite number of at least 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns because the optimizer has not stepped
        for _ in range(min(steps, MOST_STEPS)):
            schedule.step()
            _check(schedule)
        if steps > MOST_STEPS:
            schedule.load_state_dict(schedule.state_dict() | {"last_epoch": steps - 1})
            schedule.step()
            _check(schedule)


def _check(schedule: LRScheduler) -> None:
    for rate in schedule.get_last_lr():
        if isinstance(rate, complex) or not isfinite(rate) or rate < 0:
            raise ValueError(f"the learning rate of step {schedule.last_epoch} is {rate}")
