"""How far an optimizer step goes: from the signal and the noise of its gradient.

A step Δθ lowers the loss by −G·Δθ, to first order, and only the signal G of its gradient
contributes to that on average. For SGD it is lr·|G|², however large the noise. Optimizers that
normalise, such as Adam, divide by the gradient's size: there noise makes the step shorter. What the
recipe's optimizer does is tried on a small weight whose gradients have the measured signal and
noise.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import TYPE_CHECKING

import torch
from torch.nn import Parameter

if TYPE_CHECKING:
    from torch.optim import Optimizer

SIDE = 64
"""Rows and columns of the weight."""
CPU = torch.device("cpu")
STEPS, WARM_UP = 60, 20
"""Steps that are tried, and the first of them, in which moments fill, that do not count."""


def progress_per_step(
    optimizer: Callable[[list[Parameter]], Optimizer],
    *,
    signal: float,
    noise: float,
    weights: int,
    clip: float,
    device: torch.device = CPU,
    seed: int = 0,
) -> float:
    """Returns the expected decrease of the loss in one step, to first order.

    `signal` is |G|² and `noise` E|g − G|² of a step's gradient g of so many `weights`, both assumed
    to be spread evenly over the weights; `clip` is the largest gradient norm. Curvature and the
    decay of weights are left out, and so is that the signal falls with the loss: a run needs more
    steps than this says.
    """
    # Two weights with opposite noise: what is odd in it cancels.
    generator = torch.Generator().manual_seed(seed)
    sides = [Parameter(torch.zeros(SIDE, SIDE, device=device)) for _ in range(2)]
    optimizers = [optimizer([side]) for side in sides]
    scale = min(1.0, clip / sqrt(signal + noise)) if signal + noise > 0 else 1.0
    toward = torch.randint(2, (SIDE, SIDE), generator=generator).float() * 2 - 1
    toward *= sqrt(signal / weights)
    before = 0.0
    for step in range(STEPS):
        if step == WARM_UP:
            before = _along(toward, sides)
        away = torch.randn(SIDE, SIDE, generator=generator) * sqrt(noise / weights)
        for side, one, sign in zip(sides, optimizers, (1, -1), strict=True):
            side.grad = (scale * (toward + sign * away)).to(device)
            with torch.compiler.set_stance("force_eager"):  # to compile takes half a minute
                one.step()
    moved = _along(toward, sides) - before
    return -moved / (STEPS - WARM_UP) * weights / SIDE**2


def _along(toward: torch.Tensor, sides: list[Parameter]) -> float:
    mean = (sides[0].detach() + sides[1].detach()).cpu() / 2
    return float((toward.double() * mean.double()).sum())
