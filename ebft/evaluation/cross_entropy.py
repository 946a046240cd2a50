"""Evaluator `cross_entropy`: held-out negative log-prob per token, in nats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ebft.evaluation.labelled import LabelledPart
from ebft.lazy import no_grad, torch
from ebft.parts.measurements import Measurement
from ebft.parts.part import Resources
from ebft.rollout.contexts import make_contexts
from ebft.rollout.records import Document
from ebft.training.objective import cross_entropy_mask

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class CrossEntropy(LabelledPart):
    """Mean −log p of the documents' tokens, at temperature 1."""

    tokens: Literal["completion", "all"] = Field(
        "completion",
        description="tokens that count: after the prompt (in a conversation the assistant's "
        "turns), or all",
    )

    def build(self, resources: Resources) -> CrossEntropyEvaluator:
        return CrossEntropyEvaluator(self, resources)


class CrossEntropyEvaluator:
    """`CrossEntropy` bound to a device and a precision."""

    def __init__(self, options: CrossEntropy, resources: Resources) -> None:
        self._options, self._resources = options, resources

    @no_grad
    def __call__(
        self, policy: PreTrainedModel, documents: Sequence[Document]
    ) -> Sequence[Measurement]:
        from ebft.models.forward import autocast
        from ebft.models.tree_log_probs import document_log_probs

        resources = self._resources
        # Without anchors the tree is only the trunk.
        no_anchors = [torch.empty(0, dtype=torch.long)] * len(documents)
        whole = make_contexts(documents, no_anchors, rollout_length=0, stop_at_eos=False)
        whole = whole.to(resources.device)
        with autocast(resources.device, resources.precision):
            log_probs = document_log_probs(policy, whole)
        mask = cross_entropy_mask(whole, self._options.tokens)
        count = mask.sum(1).double().cpu()
        value = -(log_probs * mask).sum(1).double().cpu() / count
        return [Measurement("CE", "nats/token", value, count)]
