"""Evaluator `entropy_drift`: whether generations get more or less random as they go on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from ebft.evaluation.labelled import LabelledPart
from ebft.evaluation.rollouts import EvaluationRollouts, per_document
from ebft.interfaces import Measurement
from ebft.models.forward import autocast
from ebft.models.tree_log_probs import tree_log_probs
from ebft.parts import Part, Resources, part_of
from ebft.rollout.records import Document, Rollouts
from ebft.scoring.entropy_drift import mean_surprise, slope_over_position

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS = 100
"""A slope is given for so many tokens."""


class EntropyDrift(LabelledPart):
    """−log p of the policy's own tokens over their position, beside that of the reference's.

    `entropy` estimates the conditional entropy of the policy's generations, and its slope over the
    position says whether they drift (Braverman et al. 2019): ground truth has none to speak of,
    which `CE slope` shows on the references. A slope is the least-squares one within each context;
    with the same positions everywhere that is the slope of the mean curve.
    """

    plan: Annotated[Part, part_of("plans")] = Field(description="where and how long rollouts are")
    n: int = Field(4, ge=1, description="rollouts of each context")

    def build(self, resources: Resources) -> EntropyDriftEvaluator:
        return EntropyDriftEvaluator(self, resources)


class EntropyDriftEvaluator:
    """`EntropyDrift` bound to the policy."""

    def __init__(self, options: EntropyDrift, resources: Resources) -> None:
        self._sample = EvaluationRollouts(options.plan, resources, n=options.n)
        self._resources = resources

    @torch.no_grad()
    def __call__(
        self, policy: PreTrainedModel, documents: Sequence[Document]
    ) -> Sequence[Measurement]:
        rollouts = self._sample(policy, documents)
        contexts = None if rollouts is None else rollouts.contexts
        own = reference = (torch.empty(0, 1, 0), torch.empty(0, 1, 0, dtype=torch.bool))
        if rollouts is not None:
            own = (-rollouts.log_probs, rollouts.mask)
            reference = self._of_references(policy, rollouts)
        measured = []
        for name, (surprise, mask) in (("entropy", own), ("reference CE", reference)):
            mean, tokens = mean_surprise(surprise, mask)
            slope, spread = slope_over_position(surprise, mask)
            for what, unit, value, weight in (
                (name, "nats/token", mean, tokens),
                (f"{name} slope", f"nats in {TOKENS} tokens", TOKENS * slope, spread),
            ):
                value, weight = per_document(documents, contexts, value, weight)
                measured.append(Measurement(what, unit, value, weight))
        return measured

    def _of_references(
        self, policy: PreTrainedModel, rollouts: Rollouts
    ) -> tuple[Float[Tensor, "P 1 G"], Bool[Tensor, "P 1 G"]]:
        """−log p of the references' tokens, each after the ground truth before it."""
        resources, c = self._resources, rollouts.contexts
        with autocast(resources.device, resources.precision):
            log_probs = tree_log_probs(policy, rollouts).documents
        G = torch.arange(c.rollout_length, device=resources.device)
        at = (c.anchor[:, None] + G).clamp(max=c.tokens.shape[1] - 1)
        return -log_probs[c.row[:, None], at][:, None], c.reference_mask[:, None]
