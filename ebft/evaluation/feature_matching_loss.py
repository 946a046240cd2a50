"""Evaluator `feature_matching_loss`: the unbiased conditional feature-matching loss, L_CFM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ebft.evaluation.labelled import LabelledPart
from ebft.evaluation.rollouts import EvaluationRollouts, OfContexts, evenly, per_document
from ebft.lazy import no_grad
from ebft.parts.interfaces import FeatureMap, Plan, features_of, known_plan
from ebft.parts.kinds import FeatureMapPart
from ebft.parts.measurements import Measurement
from ebft.parts.part import Part, Resources, part_of
from ebft.rollout.records import Document, Rollouts
from ebft.scoring.kernel_scores import unbiased_cfm

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class FeatureMatchingLoss(LabelledPart):
    """E_c E_y ‖E_ŷ φ_c(ŷ) − φ_c(y)‖², estimated without bias from n rollouts at temperature 1.

    The feature map is fixed and unwhitened, so figures of different runs and steps are comparable.
    Every evaluation uses the same random numbers, so differences between evaluations have less
    noise than the figures themselves. An estimate may be negative.
    """

    plan: Annotated[Part, part_of("plans")] = Field(description="anchors and length of rollouts")
    feature_map: Annotated[FeatureMapPart, part_of("feature_maps")] = Field(description="φ")
    n: int = Field(4, ge=2, description="rollouts per context")

    def rollout_plan(self) -> Plan | None:
        return known_plan(self.plan)

    def build(self, resources: Resources) -> FeatureMatchingLossEvaluator:
        return FeatureMatchingLossEvaluator(self, resources)


class FeatureMatchingLossEvaluator:
    """`FeatureMatchingLoss` bound to the policy and its frozen base."""

    def __init__(self, options: FeatureMatchingLoss, resources: Resources) -> None:
        self._sample = EvaluationRollouts(options.plan, resources, n=options.n)
        self._feature_map: FeatureMap = options.feature_map.build(resources)

    @no_grad
    def __call__(
        self, policy: PreTrainedModel, documents: Sequence[Document]
    ) -> Sequence[Measurement]:
        rollouts = self._sample(policy, documents)
        [loss] = per_document(documents, rollouts, self._loss, figures=1)
        return [Measurement("CFM", "‖φ‖²", *loss)]

    def _loss(self, rollouts: Rollouts) -> list[OfContexts]:
        return [evenly(unbiased_cfm(features_of(self._feature_map, rollouts)))]
