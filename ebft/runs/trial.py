"""Tries a recipe's optimizer and schedule on a small weight, before anything is loaded."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import suppress
from math import isfinite
from typing import TYPE_CHECKING

import torch

from ebft.checkpoints.nested import check_nested
from ebft.errors import UserError, first_line
from ebft.models.load import resolve_device

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from ebft.runs.options import FineTuneOptions

TRIED = ("torch.", "torchao.", "transformers.")
"""Whose optimizers are tried: others may want more of a model, or of a machine, than is here."""
SIDE = 64
"""Rows and columns of the weight: of smaller ones the state is not quantised."""
MOST_STEPS = 10_000
"""Steps that a schedule is tried for, one by one, in 20 ms; of a longer run also the last."""
INSTEAD = "take another, such as torch.optim.AdamW"


def optimizer_and_schedule_do_their_steps(options: FineTuneOptions) -> Iterator[str]:
    """One update, whose state a checkpoint holds, and as many steps of the schedule as the run
    has."""
    optimizer: Optimizer = torch.optim.AdamW([_weight()])  # a schedule may set its betas
    key = "optimizer"
    try:
        if options.optimizer.path.startswith(TRIED):
            optimizer = options.optimizer.instantiate([_weight()])
            _update(optimizer, options)
        if options.lr_scheduler is not None:
            key = "lr_scheduler"
            schedule = options.lr_scheduler.instantiate(optimizer)
            _step(schedule, options.training.steps)
    except UserError as error:
        yield f"{key}: {error}"
    except Exception as error:  # they check little of what they are given
        called = getattr(options, key).call()
        remedy = INSTEAD if key == "optimizer" else f"the run has {options.training.steps} steps"
        yield f"{key}: {called}: {type(error).__name__}: {first_line(error)}; {remedy}"


def _weight() -> torch.nn.Parameter:
    weight = torch.nn.Parameter(torch.zeros(SIDE, SIDE))
    weight.grad = torch.zeros(SIDE, SIDE)
    return weight


def _update(optimizer: Optimizer, options: FineTuneOptions) -> None:
    try:
        with torch.compiler.set_stance("force_eager"):  # to compile takes half a minute
            optimizer.step()
        check_nested(optimizer.state_dict()["state"])
    except AssertionError:
        # `capturable` asserts that weights are on a GPU, where those of the run may well be.
        with suppress(UserError):  # or that GPU is not on this machine
            if resolve_device(options.model.device).type == "cpu":
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
