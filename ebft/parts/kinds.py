"""The base classes of the kinds of parts, with what a recipe asks before a part is built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from ebft.parts.interfaces import Plan
from ebft.parts.part import Part


class SamplerPart(Part):
    """The options of a sampler."""

    n: int = Field(4, ge=1, description="rollouts of each context")

    def shares_prefixes(self) -> bool:
        """Whether the rollouts of a document share the computation of their prefixes, as the cost
        model assumes. If not, `--dry-run` says that sampling may cost more."""
        return False

    def keeps_weights(self) -> bool:
        """Whether each of several processes has all weights of the policy while it samples."""
        return False

    def has_own_weights(self, processes: int) -> bool:  # noqa: ARG002
        """Whether the sampler computes outside this process, with a copy of the weights that only
        `sync` changes: then it can sample while the policy trains (`training.sample_ahead`). It is
        called in another thread for that, and must use neither the policy nor collectives of so
        many processes."""
        return False


class FeatureMapPart(Part):
    """The options of a feature map."""

    def base_depth(self) -> float:
        """The fraction of the base model's layers that the map runs, for the cost model; 0 if it
        does not use the base model."""
        return 1.0


class RewardPart(Part):
    """The options of a reward."""

    def pairwise(self) -> bool:
        """Whether the reward compares a context's rollouts with each other, and so needs n > 1."""
        return True

    def uses_features(self) -> bool:
        """Whether the reward uses features. If not, the recipe needs no feature map, none is
        computed, and the reward is called with `None` for features."""
        return True

    def method(self) -> str:
        """The name of the method that trains with this reward."""
        return "EBFT" if self.uses_features() else "RLVR"

    def per_token(self) -> bool:
        """Whether the reward scores each token by itself: its terms have a row for each of the G
        tokens of a context, [P·G, n], one after another."""
        return False


class BaselinePart(Part):
    """The options of a baseline."""

    fewest_rollouts: ClassVar[int] = 1
    """The smallest n with which advantages are not all zero."""


class EvaluatorPart(Part):
    """The options of an evaluator."""

    def rollout_plan(self) -> Plan | None:
        """The plan of the rollouts that it samples; None if there is none or it is not known."""
        return None

    def feature_maps(self) -> tuple[FeatureMapPart, ...]:
        """The feature maps that it computes: every option whose value is a feature map."""
        values: list[Any] = [getattr(self, name) for name in type(self).model_fields]
        return tuple(value for value in values if isinstance(value, FeatureMapPart))


BASES: Mapping[str, type[Part]] = {
    "samplers": SamplerPart,
    "feature_maps": FeatureMapPart,
    "rewards": RewardPart,
    "baselines": BaselinePart,
    "evaluators": EvaluatorPart,
}
"""The base class of each kind; that of the other kinds is `Part`."""
