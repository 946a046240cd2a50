"""Reward `weighted_sum`: several rewards, each with a weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from ebft.errors import UserError
from ebft.options import Options
from ebft.parts.interfaces import Reward
from ebft.parts.kinds import RewardPart
from ebft.parts.part import Claim, Resources, claim_of_all, part_of, single_process_of_all
from ebft.parts.stateful import load_part_states, part_states
from ebft.rollout.records import Features, Rollouts, Terms


class Weighted(Options):
    """A reward and its weight in the sum."""

    weight: float = Field(1.0, description="w_i, which multiplies the reward")
    reward: Annotated[RewardPart, part_of("rewards")] = Field(description="the reward")


class WeightedSum(RewardPart):
    """r_j = Σ_i w_i r_j⁽ⁱ⁾, term by term, so that baselines can leave out terms that touch j."""

    rewards: tuple[Weighted, ...] = Field(min_length=1, description="`weight` and `reward` of each")

    def pairwise(self) -> bool:
        """Whether any of the rewards compares rollouts with each other, and so needs n > 1."""
        return any(item.reward.pairwise() for item in self.rewards if item.weight)

    def uses_features(self) -> bool:
        """Whether any of the rewards uses features."""
        return any(item.reward.uses_features() for item in self.rewards)

    def other_models(self) -> tuple[str, ...]:
        return tuple(path for item in self.rewards for path in item.reward.other_models())

    def per_token(self) -> bool:
        return any(item.reward.per_token() for item in self.rewards if item.weight)

    def single_process(self) -> str | None:
        return single_process_of_all(item.reward for item in self.rewards)

    def claim(self) -> Claim | None:
        claims = [item.reward.claim() for item in self.rewards if item.weight]
        return claim_of_all(claims, "a sum of rewards has the sum of their gradients")

    def build(self, resources: Resources) -> WeightedSumReward:
        return WeightedSumReward(
            [(item.weight, item.reward.build(resources)) for item in self.rewards]
        )


class WeightedSumReward:
    """`WeightedSum` of built rewards."""

    def __init__(self, rewards: Sequence[tuple[float, Reward]]) -> None:
        self._rewards = rewards

    def state_dict(self) -> dict[str, Any]:
        return part_states([reward for _, reward in self._rewards])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_part_states([reward for _, reward in self._rewards], state)

    def __call__(self, rollouts: Rollouts, features: Features | None) -> Terms:
        each = [(weight, reward(rollouts, features)) for weight, reward in self._rewards]
        if len({terms.unary.shape for _, terms in each}) > 1:
            raise UserError(
                "reward: weighted_sum cannot add rewards of whole rollouts to rewards of single "
                "tokens; with feature_map.pooling=each features reward tokens, with all rollouts"
            )
        unary = sum(weight * terms.unary for weight, terms in each)
        pairwise = sum(weight * terms.pairwise for weight, terms in each)
        return Terms(unary, pairwise)  # type: ignore[arg-type]  # sum's type has its 0
