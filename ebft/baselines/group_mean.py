"""Baseline `group_mean`: the mean reward of the context's rollouts, rollout j included."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float

from ebft.lazy import Tensor
from ebft.parts.kinds import BaselinePart
from ebft.parts.part import Claim
from ebft.rollout.records import Terms


class GroupMean(BaselinePart):
    """A_j = r_j − mean_i r_i: `plain_rloo` times (n−1)/n.

    The mean includes r_j itself, which scales the whole gradient by (n−1)/n, in addition to the
    bias of `plain_rloo`. For n = 1 every advantage is 0.
    """

    fewest_rollouts: ClassVar[int] = 2

    def claim(self) -> Claim:
        return Claim(False, "the mean includes r_j: gradient × (n−1)/n, pairwise terms × (n−2)/n")

    def __call__(self, terms: Terms) -> Float[Tensor, "P n"]:
        reward = terms.reward()
        return reward - reward.mean(1, keepdim=True)
