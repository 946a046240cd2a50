"""Rollouts for evaluators, always with the same random numbers.

Differences between two evaluations then have less noise than the figures themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float, Int

from ebft.errors import NumericalError, UserError
from ebft.lazy import Tensor, torch
from ebft.models.shape import context_length
from ebft.parts.interfaces import Plan
from ebft.parts.part import Part, Resources
from ebft.rollout.contexts import not_finite_in
from ebft.rollout.records import Contexts, Document, Rollouts
from ebft.samplers.hf_tree import HfTree

if TYPE_CHECKING:
    from transformers import PreTrainedModel

EVALUATION_STEP = -1
"""The step for the random streams of an evaluation: constant, and different from all training
steps."""
OfContexts = tuple[Float[Tensor, " P"], Float[Tensor, " P"]]
"""The value of each context, and its weight."""
OfDocuments = tuple[Float[Tensor, " B"], Float[Tensor, " B"]]
"""The value of each document, and its weight."""


class EvaluationRollouts:
    """Samples n rollouts for each context of a plan, by default at temperature 1.

    `top_k=1` is greedy decoding, and gives the same rollout n times.
    """

    def __init__(
        self, plan: Part, resources: Resources, *, n: int, temperature: float = 1.0,
        top_k: int | None = None,
    ) -> None:  # fmt: skip
        self._plan: Plan = plan.build(resources)
        sampler = HfTree(n=n, temperature=temperature, top_k=top_k)
        self._sampler = sampler.build(resources)
        self._device = resources.device

    def __call__(self, policy: PreTrainedModel, documents: Sequence[Document]) -> Rollouts | None:
        """Returns the rollouts; None if the plan accepts none of the documents.

        Raises `NumericalError` for NaN or infinite logits, because their samples are undefined.
        """
        accepted = [document for document in documents if self._plan.accepts(document)]
        if not accepted:
            return None
        self._sampler.sync(policy, step=EVALUATION_STEP)
        contexts = self._plan(accepted)
        check_rollouts_fit(contexts, context_length(policy.config), where="evaluation")
        rollouts = self._sampler(contexts.to(self._device), step=EVALUATION_STEP)
        if (bad := not_finite_in(rollouts.log_probs, contexts)) is not None:
            raise NumericalError(
                f"evaluation: log-probs of what is sampled are NaN or infinite, in document {bad}; "
                "look for NaN or infinity in the policy's weights"
            )
        return rollouts


def check_rollouts_fit(contexts: Contexts, reads: int | None, *, where: str) -> None:
    """Raises `UserError` naming the document whose rollouts exceed the policy's context length.

    `reads` is the context length (None: no limit). `where` begins the message.
    """
    if reads is not None and contexts.reach > reads:
        length = contexts.rollout_length
        raise UserError(
            f"{where}: in {contexts.farthest.name}, rollouts of {length} tokens after "
            f"{contexts.reach - length} end beyond the model's context length, {reads} tokens; "
            "make rollout_length smaller, or the documents' length"
        )


def per_document(
    documents: Sequence[Document],
    rollouts: Rollouts | None,
    values: Callable[[Rollouts], Sequence[OfContexts]],
    *,
    figures: int,
) -> list[OfDocuments]:
    """Returns the weighted mean over each document's contexts, and its weight, for each figure.

    `values` returns the values of contexts; it is not called if there are no rollouts. A document
    without contexts has value 0 and weight 0.
    """
    if rollouts is None:
        empty = torch.zeros(len(documents), dtype=torch.float64)
        return [(empty, empty.clone()) for _ in range(figures)]
    index = torch.tensor(places(documents, rollouts.contexts))[rollouts.contexts.row.cpu()]
    found = [_mean(index, *of_contexts, count=len(documents)) for of_contexts in values(rollouts)]
    assert len(found) == figures, (len(found), figures)
    return found


def evenly(value: Float[Tensor, " P"]) -> OfContexts:
    """Returns the values of contexts with weights of 1."""
    return value, torch.ones_like(value, dtype=torch.float64)


def _mean(
    index: Int[Tensor, " P"], value: Float[Tensor, " P"], weight: Float[Tensor, " P"], *, count: int
) -> OfDocuments:
    value, weight = value.double().cpu(), weight.double().cpu()
    total = torch.zeros(count, dtype=torch.float64).index_add_(0, index, weight * value)
    weights = torch.zeros_like(total).index_add_(0, index, weight)
    return torch.where(weights > 0, total / weights.clamp(min=1e-300), 0), weights


def places(documents: Sequence[Document], contexts: Contexts) -> list[int]:
    """Returns the index in `documents` of each document of the contexts."""
    # In order, not by name, because a process may measure a repeated document.
    rest = iter(enumerate(documents))
    return [next(i for i, document in rest if document is one) for one in contexts.documents]
