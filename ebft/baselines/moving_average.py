"""Baseline `moving_average`: an average of the mean rewards of earlier steps."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from pydantic import Field

from ebft.lazy import Tensor
from ebft.parts.kinds import BaselinePart
from ebft.parts.part import Claim, Resources
from ebft.rollout.records import Terms


class MovingAverage(BaselinePart):
    """A_j = r_j − b, b = exponential moving average of the mean rewards of earlier steps.

    b does not depend on this step, so the gradient stays unbiased, even for n = 1. The average is
    bias-corrected (divided by 1 − decay^t); at the first step b = 0.
    """

    decay: float = Field(0.9, ge=0, lt=1, description="weight of the earlier steps at each step")

    def claim(self) -> Claim:
        return Claim(True, "b depends only on the rewards of earlier steps")

    def build(self, resources: Resources) -> MovingAverageBaseline:  # noqa: ARG002
        return MovingAverageBaseline(self.decay)


class MovingAverageBaseline:
    """`MovingAverage` with its state: `weighted` sum of means and the sum of their `weight`s."""

    def __init__(self, decay: float) -> None:
        self.decay, self.weighted, self.weight = decay, 0.0, 0.0

    @property
    def value(self) -> float:
        """b of the next step."""
        return self.weighted / self.weight if self.weight else 0.0

    def __call__(self, terms: Terms) -> Float[Tensor, "P n"]:
        reward = terms.reward()
        advantages = reward - self.value
        new = 1 - self.decay
        self.weighted = self.decay * self.weighted + new * float(reward.mean())
        self.weight = self.decay * self.weight + new
        return advantages

    def state_dict(self) -> dict[str, Any]:
        return {"weighted": self.weighted, "weight": self.weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weighted, self.weight = state["weighted"], state["weight"]
