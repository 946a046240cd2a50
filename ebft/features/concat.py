"""Feature map `concat`: several feature maps concatenated, each with a weight."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Annotated, Any

from pydantic import Field

from ebft.errors import UserError
from ebft.lazy import torch
from ebft.options import Options
from ebft.parts.interfaces import FeatureMap, features_of
from ebft.parts.kinds import FeatureMapPart
from ebft.parts.part import Claim, Resources, claim_of_all, part_of, single_process_of_all
from ebft.parts.stateful import load_part_states, part_states
from ebft.rollout.records import Features, Rollouts


class WeightedMap(Options):
    """A feature map and the weight of its inner products."""

    weight: float = Field(1.0, gt=0, description="w_i, the weight of its inner products in the sum")
    feature_map: Annotated[FeatureMapPart, part_of("feature_maps")] = Field(
        description="the feature map"
    )


class Concat(FeatureMapPart):
    """φ = [√w_1 φ⁽¹⁾, √w_2 φ⁽²⁾, …], so that φ·φ' = Σ_i w_i φ⁽ⁱ⁾·φ'⁽ⁱ⁾.

    With feature matching, the loss is the weighted sum of the maps' losses.
    """

    maps: tuple[WeightedMap, ...] = Field(
        min_length=1, description="`weight` and `feature_map` of each"
    )

    def claim(self) -> Claim | None:
        claims = [item.feature_map.claim() for item in self.maps]
        return claim_of_all(claims, "its feature maps are concatenated, and their losses add up")

    def base_depth(self) -> float:
        return max(item.feature_map.base_depth() for item in self.maps)

    def other_models(self) -> tuple[str, ...]:
        return tuple(path for item in self.maps for path in item.feature_map.other_models())

    def single_process(self) -> str | None:
        return single_process_of_all(item.feature_map for item in self.maps)

    def build(self, resources: Resources) -> ConcatMap:
        return ConcatMap([(sqrt(m.weight), m.feature_map.build(resources)) for m in self.maps])


class ConcatMap:
    """`Concat` of built feature maps, with the square roots of their weights."""

    def __init__(self, maps: Sequence[tuple[float, FeatureMap]]) -> None:
        self._maps = maps

    def state_dict(self) -> dict[str, Any]:
        return part_states([feature_map for _, feature_map in self._maps])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_part_states([feature_map for _, feature_map in self._maps], state)

    def __call__(self, rollouts: Rollouts) -> Features:
        each = [(root, features_of(feature_map, rollouts)) for root, feature_map in self._maps]
        several = rollouts.contexts.rollout_length > 1  # a single token is the whole rollout
        if several and any(features.per_token for _, features in each):
            raise UserError(
                "feature_map: concat cannot put features of single tokens beside others; set "
                "pooling=all instead of each in its maps"
            )
        return Features(
            torch.cat([root * features.samples for root, features in each], -1),
            torch.cat([root * features.references for root, features in each], -1),
            # `layers` counts blocks of equal size, and different maps need not have the same.
            layers=each[0][1].layers if len(each) == 1 else 1,
            stacked=each[0][1].stacked if len(each) == 1 else False,
        )
