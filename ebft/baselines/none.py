"""Baseline `none`: nothing is subtracted."""

from __future__ import annotations

from jaxtyping import Float

from ebft.lazy import Tensor
from ebft.parts.kinds import BaselinePart
from ebft.parts.part import Claim
from ebft.rollout.records import Terms


class NoBaseline(BaselinePart):
    """A_j = r_j: the advantage is the reward. Unbiased, with the most variance."""

    def claim(self) -> Claim:
        return Claim(True, "nothing is subtracted")

    def __call__(self, terms: Terms) -> Float[Tensor, "P n"]:
        return terms.reward()
