"""The two parts of the loss of some documents, from one forward."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ebft.importance import importance_weights
from ebft.models.forward import autocast
from ebft.models.tree_log_probs import document_log_probs, tree_log_probs
from ebft.objective import (
    ObjectiveOptions,
    cross_entropy_loss,
    cross_entropy_mask,
    policy_gradient_loss,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ebft.processes import Processes
    from ebft.rollout.records import Contexts, Rollouts, Scored


class Counts(NamedTuple):
    """Of the whole step: contexts, tokens of rollouts, tokens under the cross-entropy."""

    contexts: int
    rollout_tokens: int
    tokens: int


def count(
    contexts: Contexts, scored: Scored | None, objective: ObjectiveOptions, processes: Processes
) -> Counts:
    """What the losses of all processes are divided by."""
    tokens = cross_entropy_mask(contexts, objective.cross_entropy_tokens).sum()
    sampled = torch.zeros_like(tokens) if scored is None else scored.rollouts.mask.sum()
    mine = torch.stack([torch.full_like(tokens, len(contexts)), sampled, tokens])
    return Counts(*processes.sum(mine).tolist())


class RolloutLoss(NamedTuple):
    """The policy gradient's loss, and what it was made of; `ratios` if importance is weighed."""

    loss: Float[Tensor, ""]
    rollouts: Rollouts
    log_probs: Float[Tensor, "P n G"]
    ratios: Float[Tensor, " N"] | None


class DocumentLoss(NamedTuple):
    """The cross-entropy, γ not in it, and what it was made of."""

    loss: Float[Tensor, ""]
    log_probs: Float[Tensor, "B S"]


def micro_batch_losses(
    policy: PreTrainedModel,
    contexts: Contexts,
    place: slice,
    scored: Scored | None,
    objective: ObjectiveOptions,
    counts: Counts,
    *,
    precision: torch.dtype,
    train_documents: bool = True,
) -> tuple[RolloutLoss | None, DocumentLoss]:
    """L_FM and L_CE of the contexts at a place of the step: their share of the step's, by `counts`.

    Without rollouts (`scored` is None) there is no L_FM.
    """
    of_rollouts = None
    if scored is None:
        with autocast(contexts.tokens.device, precision):
            documents = document_log_probs(policy, contexts)
    else:
        rollouts = scored.rollouts.of(contexts, place)
        with autocast(contexts.tokens.device, precision):
            sampled, documents = tree_log_probs(policy, rollouts, train_documents=train_documents)
        importance = importance_weights(sampled, rollouts, objective.importance)
        loss = policy_gradient_loss(
            sampled, rollouts.mask, scored.advantages[place],
            contexts=counts.contexts, reduction=objective.reduction, weights=importance.weights,
        )  # fmt: skip
        of_rollouts = RolloutLoss(loss, rollouts, sampled, importance.ratios)
    mask = cross_entropy_mask(contexts, objective.cross_entropy_tokens)
    cross_entropy = cross_entropy_loss(documents, mask, tokens=counts.tokens)
    return of_rollouts, DocumentLoss(cross_entropy, documents)
