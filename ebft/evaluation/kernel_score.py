"""Evaluator `kernel_score`: the unbiased kernel score of rollouts and references."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ebft.evaluation.labelled import LabelledPart
from ebft.evaluation.rollouts import EvaluationRollouts, OfContexts, evenly, per_document
from ebft.lazy import no_grad
from ebft.parts.interfaces import FeatureMap, Plan, features_of, known_plan
from ebft.parts.kinds import FeatureMapPart
from ebft.parts.measurements import Measurement
from ebft.parts.part import Part, Resources, part_of
from ebft.rollout.records import Document, Rollouts
from ebft.scoring import kernels
from ebft.scoring.kernel_scores import unbiased_kernel_score

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class KernelScoreEvaluation(LabelledPart):
    """E k(ŷ, ŷ') − 2 E k(ŷ, y) + k(y, y): MMD² between rollouts and ground truth, plus a constant.

    It is strictly proper in the distribution of the features, while `feature_matching_loss` depends
    only on their mean. An estimate may be negative.
    """

    plan: Annotated[Part, part_of("plans")] = Field(description="anchors and length of rollouts")
    feature_map: Annotated[FeatureMapPart, part_of("feature_maps")] = Field(description="φ")
    kernel: Literal["energy", "rbf", "multi_rbf", "laplace"] = Field(
        "energy", description="k; energy is −‖x − y‖, whose score is the energy score"
    )
    bandwidth: float = Field(
        1.0, gt=0, description="h of rbf, multi_rbf and laplace; fixed, so that figures compare"
    )
    n: int = Field(4, ge=2, description="rollouts per context")

    def rollout_plan(self) -> Plan | None:
        return known_plan(self.plan)

    def build(self, resources: Resources) -> KernelScoreEvaluator:
        return KernelScoreEvaluator(self, resources)


class KernelScoreEvaluator:
    """`KernelScoreEvaluation` bound to the policy and its frozen base."""

    def __init__(self, options: KernelScoreEvaluation, resources: Resources) -> None:
        self._sample = EvaluationRollouts(options.plan, resources, n=options.n)
        self._feature_map: FeatureMap = options.feature_map.build(resources)
        self._name = f"{options.kernel} score"
        self._kernel: kernels.Kernel = kernels.energy
        if options.kernel != "energy":
            self._kernel = partial(
                kernels.WITH_BANDWIDTH[options.kernel], bandwidth=options.bandwidth
            )

    @no_grad
    def __call__(
        self, policy: PreTrainedModel, documents: Sequence[Document]
    ) -> Sequence[Measurement]:
        rollouts = self._sample(policy, documents)
        [score] = per_document(documents, rollouts, self._score, figures=1)
        unit = "‖φ‖" if self._kernel is kernels.energy else "k"
        return [Measurement(self._name, unit, *score)]

    def _score(self, rollouts: Rollouts) -> list[OfContexts]:
        features = features_of(self._feature_map, rollouts)
        return [evenly(unbiased_kernel_score(features, self._kernel))]
