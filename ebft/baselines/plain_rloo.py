"""Baseline `plain_rloo`: the mean of the others' total rewards. Biased for this method."""

from __future__ import annotations

from jaxtyping import Float

from ebft.lazy import Tensor
from ebft.parts.kinds import BaselinePart
from ebft.parts.part import Claim
from ebft.rollout.records import Terms


class PlainRloo(BaselinePart):
    """A_j = r_j − mean_{i≠j} r_i, REINFORCE leave-one-out as for rewards of single rollouts.

    The others' rewards include k_ij, so with pairwise terms they depend on rollout j: the expected
    gradient is that of the objective with its pairwise part scaled by (n−2)/(n−1). For feature
    matching that is 2/3 of the diversity at n = 4 and none of it at n = 2. Axolotl's trainer
    does this; it is here for comparison. Without pairwise terms it equals `leave_one_out`. For
    n = 1 the baseline is 0.
    """

    def claim(self) -> Claim:
        return Claim(False, "the others' rewards touch rollout j: pairwise terms × (n−2)/(n−1)")

    def __call__(self, terms: Terms) -> Float[Tensor, "P n"]:
        reward = terms.reward()
        others = max(reward.shape[1] - 1, 1)
        return reward - (reward.sum(1, keepdim=True) - reward) / others
