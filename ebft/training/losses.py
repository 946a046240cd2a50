"""The two parts of the loss of some documents, from one forward of the policy."""

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
    """What the whole step has: contexts, tokens of rollouts, tokens under the cross-entropy."""

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


class LogProbs(NamedTuple):
    """log p of the documents' tokens, and of rollout tokens at their temperature, if any."""

    documents: Float[Tensor, "B S"]
    rollouts: Float[Tensor, "P n G"] | None


def policy_log_probs(
    policy: PreTrainedModel,
    contexts: Contexts,
    rollouts: Rollouts | None,
    *,
    precision: torch.dtype,
    train_documents: bool = True,
) -> LogProbs:
    """One forward over the contexts' trees; differentiable, the documents' if they are trained."""
    with autocast(contexts.tokens.device, precision):
        if rollouts is None:
            return LogProbs(document_log_probs(policy, contexts), None)
        sampled, documents = tree_log_probs(policy, rollouts, train_documents=train_documents)
        return LogProbs(documents, sampled)


class PolicyGradientLoss(NamedTuple):
    """The policy gradient's loss, and the importance ratios if the objective weighs with them."""

    loss: Float[Tensor, ""]
    ratios: Float[Tensor, " N"] | None


def policy_gradient(
    log_probs: LogProbs,
    rollouts: Rollouts,
    advantages: Float[Tensor, "P n"] | Float[Tensor, "P n G"],
    objective: ObjectiveOptions,
    counts: Counts,
) -> PolicyGradientLoss:
    """The loss whose gradient is that of L_FM: these rollouts' share of the whole step's."""
    assert log_probs.rollouts is not None
    importance = importance_weights(log_probs.rollouts, rollouts, objective.importance)
    loss = policy_gradient_loss(
        log_probs.rollouts, rollouts.mask, advantages,
        contexts=counts.contexts, reduction=objective.reduction, weights=importance.weights,
    )  # fmt: skip
    return PolicyGradientLoss(loss, importance.ratios)


def cross_entropy(
    log_probs: LogProbs, contexts: Contexts, objective: ObjectiveOptions, counts: Counts
) -> Float[Tensor, ""]:
    """L_CE, γ not in it: these documents' share of the whole step's."""
    mask = cross_entropy_mask(contexts, objective.cross_entropy_tokens)
    return cross_entropy_loss(log_probs.documents, mask, tokens=counts.tokens)
