"""Baseline `group_normalised`: advantages with mean 0 and standard deviation 1 in each context."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float

from ebft.lazy import Tensor, torch
from ebft.parts.kinds import BaselinePart
from ebft.parts.part import Claim
from ebft.rollout.records import Terms

EQUAL = 1e-6
"""Rewards whose spread is below this fraction of their terms' size differ only by rounding."""


class GroupNormalised(BaselinePart):
    """A_j = (r_j − mean_i r_i) / std_i r_i, as in GRPO; std over the n rollouts, divisor n − 1.

    Every context gets the same weight, even if its rollouts hardly differ, so the gradient is not
    that of a fixed objective. If all rewards of a context are equal, its advantages are 0.
    """

    fewest_rollouts: ClassVar[int] = 2

    def claim(self) -> Claim:
        return Claim(False, "each context's gradient is divided by the spread of its own rewards")

    def __call__(self, terms: Terms) -> Float[Tensor, "P n"]:
        reward = terms.reward()
        centred = reward - reward.mean(1, keepdim=True)
        if reward.shape[1] == 1:
            return centred
        spread = centred.square().sum(1, keepdim=True).div(reward.shape[1] - 1).sqrt()
        # Relative to the terms, not to the rewards: where terms cancel, a reward is only rounding.
        equal = spread <= EQUAL * _size(terms).amax(1, keepdim=True)
        return torch.where(equal, 0, centred / spread.where(~equal, 1))


def _size(terms: Terms) -> Float[Tensor, "P n"]:
    """Returns each reward computed from the absolute values of its terms."""
    return Terms(terms.unary.abs(), terms.pairwise.abs()).reward()
