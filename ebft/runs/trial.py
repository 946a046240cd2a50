"""Tries a recipe's optimizer and schedule on a small weight, before anything is loaded."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import isfinite
from typing import TYPE_CHECKING

import torch

from ebft.checkpoints.nested import check_nested
from ebft.errors import UserError, first_line
from ebft.models.load import resolve_device

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from ebft.config.component import Component
    from ebft.config.kinds import OptimizerComponent, ScheduleComponent

TRIED = ("torch.", "torchao.", "transformers.")
"""Whose optimizers are tried: others may want more of a model, or of a machine, than is here."""
SIDE = 64
"""Rows and columns of the weight: of smaller ones the state is not quantised."""
MOST_STEPS = 10_000
"""Steps that a schedule is tried for, one by one, in 20 ms; of a longer run also the last."""
INSTEAD = "take another, such as torch.optim.AdamW"


def try_optimizer(component: OptimizerComponent, device: str) -> Iterator[str]:
    """One update of a small weight, whose state a checkpoint must be able to hold.

    An optimizer that is none of `TRIED` is not tried.
    """
    if not component.path.startswith(TRIED):
        return
    with _said("optimizer", component, INSTEAD) as said:
        _update(component.instantiate([_weight()]), device)
    yield from said


def try_schedule(
    schedule: ScheduleComponent | None, component: OptimizerComponent, steps: int
) -> Iterator[str]:
    """As many steps of the schedule as the run has."""
    if schedule is None:
        return
    optimizer: Optimizer = torch.optim.AdamW([_weight()])
    if component.path.startswith(TRIED):  # a schedule may set what only its optimizer has
        with suppress(Exception):  # which `try_optimizer` reports
            optimizer = component.instantiate([_weight()])
    with _said("lr_scheduler", schedule, f"the run has {steps} steps") as said:
        _step(schedule.instantiate(optimizer), steps)
    yield from said


@contextmanager
def _said(key: str, component: Component, remedy: str) -> Iterator[list[str]]:
    """Collects the line that an error within it makes."""
    said: list[str] = []
    try:
        yield said
    except UserError as error:
        said.append(f"{key}: {error}")
    except Exception as error:  # they check little of what they are given
        what = f"{type(error).__name__}: {first_line(error)}"
        said.append(f"{key}: {component.call()}: {what}; {remedy}")


def _weight() -> torch.nn.Parameter:
    weight = torch.nn.Parameter(torch.zeros(SIDE, SIDE))
    weight.grad = torch.zeros(SIDE, SIDE)
    return weight


def _update(optimizer: Optimizer, device: str) -> None:
    try:
        with torch.compiler.set_stance("force_eager"):  # to compile takes half a minute
            optimizer.step()
        check_nested(optimizer.state_dict()["state"])
    except AssertionError:
        # `capturable` asserts that weights are on a GPU, where those of the run may well be.
        with suppress(UserError):  # or that GPU is not on this machine
            if resolve_device(device).type == "cpu":
                raise


def _step(schedule: LRScheduler, steps: int) -> None:
    """Steps a schedule to the end of the run; raises what it raises, and `ValueError` for a
    learning rate that is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the optimizer has made no step in between
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
