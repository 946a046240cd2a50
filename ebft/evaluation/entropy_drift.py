"""Evaluator `entropy_drift`: whether generations get more or less random with their length."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

from jaxtyping import Bool, Float
from pydantic import Field

from ebft.evaluation.labelled import LabelledPart
from ebft.evaluation.rollouts import EvaluationRollouts, OfContexts, per_document
from ebft.lazy import Tensor, no_grad, torch
from ebft.parts.interfaces import Plan, known_plan
from ebft.parts.measurements import Measurement
from ebft.parts.part import Part, Resources, part_of
from ebft.rollout.records import Document, Rollouts
from ebft.scoring.estimators import mean_surprise, slope_over_position

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS = 100
"""Slopes are given per this number of tokens."""
FIGURES = (
    ("entropy", "nats/token"),
    ("entropy slope", f"nats in {TOKENS} tokens"),
    ("reference CE", "nats/token"),
    ("reference CE slope", f"nats in {TOKENS} tokens"),
)
"""Names and units."""


class EntropyDrift(LabelledPart):
    """−log p of the policy's own tokens and of the reference's, and their slopes over position.

    `entropy` estimates the conditional entropy of the policy's generations, and its slope over the
    position shows whether they drift (Braverman et al. 2019). Ground truth has almost no slope,
    which `reference CE slope` shows. A slope is the least-squares slope within each context; with
    the same positions in all contexts, it is the slope of the mean curve.
    """

    plan: Annotated[Part, part_of("plans")] = Field(description="anchors and length of rollouts")
    n: int = Field(4, ge=1, description="rollouts per context")

    def rollout_plan(self) -> Plan | None:
        return known_plan(self.plan)

    def build(self, resources: Resources) -> EntropyDriftEvaluator:
        return EntropyDriftEvaluator(self, resources)


class EntropyDriftEvaluator:
    """`EntropyDrift` bound to the policy."""

    def __init__(self, options: EntropyDrift, resources: Resources) -> None:
        self._sample = EvaluationRollouts(options.plan, resources, n=options.n)
        self._resources = resources

    @no_grad
    def __call__(
        self, policy: PreTrainedModel, documents: Sequence[Document]
    ) -> Sequence[Measurement]:
        rollouts = self._sample(policy, documents)
        values = partial(self._values, policy)
        each = per_document(documents, rollouts, values, figures=len(FIGURES))
        return [
            Measurement(name, unit, *found)
            for (name, unit), found in zip(FIGURES, each, strict=True)
        ]

    def _values(self, policy: PreTrainedModel, rollouts: Rollouts) -> list[OfContexts]:
        """Returns the values and weights of each context for `FIGURES`, in order."""
        values = []
        for surprise, mask in (
            (-rollouts.log_probs, rollouts.mask),
            self._of_references(policy, rollouts),
        ):
            slope, spread = slope_over_position(surprise, mask)
            values += [mean_surprise(surprise, mask), (TOKENS * slope, spread)]
        return values

    def _of_references(
        self, policy: PreTrainedModel, rollouts: Rollouts
    ) -> tuple[Float[Tensor, "P 1 G"], Bool[Tensor, "P 1 G"]]:
        """Returns −log p of the references' tokens, each given the ground truth before it."""
        from ebft.models.forward import autocast
        from ebft.models.tree_log_probs import tree_log_probs

        resources, c = self._resources, rollouts.contexts
        with autocast(resources.device, resources.precision):
            log_probs = tree_log_probs(policy, rollouts).documents
        G = torch.arange(c.rollout_length, device=resources.device)
        at = (c.anchor[:, None] + G).clamp(max=c.tokens.shape[1] - 1)
        return -log_probs[c.row[:, None], at][:, None], c.reference_mask[:, None]
