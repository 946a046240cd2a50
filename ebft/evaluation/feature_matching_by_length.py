"""Evaluator `feature_matching_by_length`: L_CFM as a function of the completion's length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt, model_validator

from ebft.evaluation.labelled import LabelledPart
from ebft.evaluation.rollouts import EvaluationRollouts, OfContexts, evenly, per_document
from ebft.lazy import no_grad
from ebft.parts.interfaces import FeatureMap, Plan, features_of_lengths, known_plan
from ebft.parts.kinds import FeatureMapPart
from ebft.parts.measurements import Measurement
from ebft.parts.part import Part, Resources, part_of
from ebft.rollout.records import Document, Rollouts
from ebft.scoring.kernel_scores import unbiased_cfm

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class FeatureMatchingByLength(LabelledPart):
    """E_c E_y ‖E_ŷ φ_c(ŷ) − φ_c(y)‖² for completions of each length, unbiased (paper, figure 1).

    One rollout of the longest length gives all shorter ones: tokens are drawn one after another, so
    its first L tokens are exactly a rollout of L tokens. All lengths are measured on the same
    contexts, those for which the longest fits. Use the same feature map for all runs to be
    compared.
    """

    plan: Annotated[Part, part_of("plans")] = Field(
        description="anchors of rollouts; its rollout_length must be the largest of `lengths`"
    )
    feature_map: Annotated[FeatureMapPart, part_of("feature_maps")] = Field(description="φ")
    lengths: tuple[PositiveInt, ...] = Field(
        (8, 16, 32, 64, 128, 256), min_length=1, description="tokens of a completion"
    )
    n: int = Field(4, ge=2, description="rollouts per context")

    @model_validator(mode="after")
    def _rollouts_are_as_long_as_the_longest(self) -> FeatureMatchingByLength:
        if isinstance(self.plan, Plan) and self.plan.rollout_length != max(self.lengths):
            raise ValueError(
                f"plan.rollout_length = {self.plan.rollout_length} is not the longest of lengths, "
                f"{max(self.lengths)}"
            )
        return self

    def rollout_plan(self) -> Plan | None:
        return known_plan(self.plan)

    def build(self, resources: Resources) -> FeatureMatchingByLengthEvaluator:
        return FeatureMatchingByLengthEvaluator(self, resources)


class FeatureMatchingByLengthEvaluator:
    """`FeatureMatchingByLength` bound to the policy and its frozen base."""

    def __init__(self, options: FeatureMatchingByLength, resources: Resources) -> None:
        self._lengths = sorted(set(options.lengths))
        self._sample = EvaluationRollouts(options.plan, resources, n=options.n)
        self._feature_map: FeatureMap = options.feature_map.build(resources)

    @no_grad
    def __call__(
        self, policy: PreTrainedModel, documents: Sequence[Document]
    ) -> Sequence[Measurement]:
        rollouts = self._sample(policy, documents)
        losses = per_document(documents, rollouts, self._losses, figures=len(self._lengths))
        return [
            Measurement(f"CFM of {length} tokens", "‖φ‖²", *loss, at=length)
            for length, loss in zip(self._lengths, losses, strict=True)
        ]

    def _losses(self, rollouts: Rollouts) -> list[OfContexts]:
        features = features_of_lengths(self._feature_map, rollouts, self._lengths)
        return [evenly(unbiased_cfm(of_length)) for of_length in features]
