"""Evaluator `feature_matching_loss`: the unbiased conditional feature-matching loss, L_CFM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field

from ebft.interfaces import FeatureMap, Measurement, Plan
from ebft.parts import Part, Resources, part_of
from ebft.rollout.records import Document
from ebft.samplers.hf_tree import HfTree
from ebft.scoring.cfm import unbiased_cfm

if TYPE_CHECKING:
    from transformers import PreTrainedModel

EVALUATION_STEP = -1
"""The random streams' step of an evaluation: always the same one, and none that trains."""


class FeatureMatchingLoss(Part):
    """E_c E_y ‖E_ŷ φ_c(ŷ) − φ_c(y)‖², estimated without bias from n rollouts at temperature 1.

    The feature map is fixed and unwhitened, so figures of different runs and steps compare. Every
    evaluation draws with the same random numbers, so differences between them have less noise than
    the figures themselves. An estimate may be negative.
    """

    plan: Annotated[Part, part_of("plans")] = Field(description="where and how long rollouts are")
    feature_map: Annotated[Part, part_of("feature_maps")] = Field(description="φ")
    n: int = Field(4, ge=2, description="rollouts of each context")

    def build(self, resources: Resources) -> FeatureMatchingLossEvaluator:
        return FeatureMatchingLossEvaluator(self, resources)


class FeatureMatchingLossEvaluator:
    """`FeatureMatchingLoss` bound to the policy and its frozen base."""

    def __init__(self, options: FeatureMatchingLoss, resources: Resources) -> None:
        self._plan: Plan = options.plan.build(resources)
        self._feature_map: FeatureMap = options.feature_map.build(resources)
        self._sampler = HfTree(n=options.n, temperature=1.0).build(resources)
        self._device = resources.device

    @torch.no_grad()
    def __call__(
        self, policy: PreTrainedModel, documents: Sequence[Document]
    ) -> Sequence[Measurement]:
        self._sampler.sync(policy, step=EVALUATION_STEP)
        contexts = self._plan(documents).to(self._device)
        rollouts = self._sampler(contexts, step=EVALUATION_STEP)
        features = self._feature_map(rollouts)
        loss = unbiased_cfm(features).double()
        weight = torch.bincount(contexts.row, minlength=len(documents)).double()
        total = torch.zeros_like(weight).index_add(0, contexts.row, loss)
        return [Measurement("held-out CFM", "‖φ‖²", (total / weight).cpu(), weight.cpu())]
