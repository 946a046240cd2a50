"""The two parts of the loss: for a micro-batch, from one forward, and summed over a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ebft.distributed.processes import Processes
from ebft.models.forward import autocast
from ebft.models.tree_log_probs import (
    document_log_probs_and_entropies,
    tree_log_probs_and_entropies,
)
from ebft.rollout.records import Rollouts
from ebft.training.objective import (
    LIKELIEST,
    ObjectiveOptions,
    RatioStatistics,
    cross_entropy_loss,
    cross_entropy_mask,
    importance_weights,
    policy_gradient_loss,
    ratio_statistics,
    token_weights,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ebft.distributed.processes import Processes
    from ebft.rollout.records import Contexts, Rollouts, Scored


class Counts(NamedTuple):
    """Counts over the whole step: contexts, rollout tokens, and tokens of the cross-entropy."""

    contexts: int
    rollout_tokens: int
    tokens: int


def count(
    contexts: Contexts, scored: Scored | None, objective: ObjectiveOptions, processes: Processes
) -> Counts:
    """Returns the counts over all processes, by which the losses are divided."""
    tokens = cross_entropy_mask(contexts, objective.cross_entropy_tokens).sum()
    sampled = torch.zeros_like(tokens) if scored is None else scored.rollouts.mask.sum()
    mine = torch.stack([torch.full_like(tokens, len(contexts)), sampled, tokens])
    return Counts(*processes.sum(mine).tolist())


class LogProbs(NamedTuple):
    """log p of the documents' tokens, and of rollout tokens at the sampling temperature, if any.

    `entropies` are of the distributions that predict the documents' tokens, if the objective uses
    them; else zeros.
    """

    documents: Float[Tensor, "B S"]
    entropies: Float[Tensor, "B S"]
    rollouts: Float[Tensor, "P n G"] | None


def policy_log_probs(
    policy: PreTrainedModel,
    contexts: Contexts,
    rollouts: Rollouts | None,
    *,
    precision: torch.dtype,
    train_documents: bool = True,
    entropies: bool = False,
    keep_logits: bool = False,
) -> LogProbs:
    """Returns log-probs from one forward over the contexts' trees. They are differentiable; those
    of documents only if `train_documents`. `entropies`: compute those of documents too.
    `keep_logits`: for backward, which otherwise computes them again."""
    likeliest = LIKELIEST if entropies else 0
    with autocast(contexts.tokens.device, precision):
        if rollouts is None:
            documents = document_log_probs_and_entropies(
                policy, contexts, likeliest=likeliest, keep_logits=keep_logits
            )
            return LogProbs(*documents, rollouts=None)
        sampled, documents = tree_log_probs_and_entropies(
            policy, rollouts,
            train_documents=train_documents, likeliest=likeliest, keep_logits=keep_logits,
        )  # fmt: skip
        return LogProbs(*documents, rollouts=sampled)


class PolicyGradientLoss(NamedTuple):
    """The policy gradient's loss, and the importance ratios; None without importance weights."""

    loss: Float[Tensor, ""]
    ratios: Float[Tensor, " N"] | None


def policy_gradient(
    log_probs: LogProbs,
    rollouts: Rollouts,
    advantages: Float[Tensor, "P n"] | Float[Tensor, "P n G"],
    objective: ObjectiveOptions,
    counts: Counts,
) -> PolicyGradientLoss:
    """Returns the loss whose gradient is that of L_FM: these rollouts' share of the step's."""
    assert log_probs.rollouts is not None
    importance = importance_weights(log_probs.rollouts, rollouts, objective.importance)
    loss = policy_gradient_loss(
        log_probs.rollouts, rollouts.mask, advantages,
        contexts=counts.contexts, reduction=objective.reduction, weights=importance.weights,
    )  # fmt: skip
    return PolicyGradientLoss(loss, importance.ratios)


class CrossEntropyLoss(NamedTuple):
    """The loss to differentiate, without the factor γ, and L_CE to log: the same unless tokens have
    weights."""

    loss: Float[Tensor, ""]
    nats: Float[Tensor, ""]


def cross_entropy(
    log_probs: LogProbs, contexts: Contexts, objective: ObjectiveOptions, counts: Counts
) -> CrossEntropyLoss:
    """Returns these documents' share of the step's cross-entropy."""
    mask = cross_entropy_mask(contexts, objective.cross_entropy_tokens)
    nats = cross_entropy_loss(log_probs.documents, mask, tokens=counts.tokens)
    weights = token_weights(log_probs.documents, log_probs.entropies, objective.token_weights)
    if weights is None:
        return CrossEntropyLoss(nats, nats.detach())
    loss = cross_entropy_loss(log_probs.documents, mask, tokens=counts.tokens, weights=weights)
    return CrossEntropyLoss(loss, nats.detach())


class PolicyGradient(NamedTuple):
    """The policy gradient's loss over the whole step, and how trainer and sampler differ.

    `sampler_gap` is the mean |log p(trainer) − log p(sampler)| over rollout tokens: rounding if
    both have the same weights, much more if the sampler's are stale. `ratios` are the statistics of
    the importance ratios; None without importance weights.
    """

    loss: float
    sampler_gap: float
    ratios: RatioStatistics | None


class Losses(NamedTuple):
    """The two parts of the loss over the whole step; `policy_gradient` is None without rollouts."""

    policy_gradient: PolicyGradient | None
    cross_entropy: float


class Totals:
    """Sums of the losses over the micro-batches of a step."""

    def __init__(self, objective: ObjectiveOptions, device: torch.device) -> None:
        self._cap = objective.importance.cap
        # On the device: the host would wait for it at every micro-batch.
        zeros = torch.zeros(3, dtype=torch.float64, device=device)
        self._cross_entropy, self._policy_gradient, self._gap = zeros
        self._rollouts, self._ratios = False, list[Tensor]()

    def add_documents(self, nats: Float[Tensor, ""]) -> None:
        """Adds the cross-entropy of a micro-batch."""
        self._cross_entropy += nats

    def add_rollouts(
        self,
        pg_loss: Float[Tensor, ""],
        ratios: Float[Tensor, " N"] | None,
        log_probs: LogProbs,
        rollouts: Rollouts,
    ) -> None:
        """Adds the policy gradient's loss of a micro-batch, and the log-probs of its rollouts."""
        assert log_probs.rollouts is not None
        self._rollouts = True
        self._policy_gradient += pg_loss.detach()
        gap = (log_probs.rollouts.detach() - rollouts.log_probs).where(rollouts.mask, 0)
        self._gap += gap.abs().sum()
        if ratios is not None:
            self._ratios.append(ratios)

    def of_all(self, counts: Counts, processes: Processes) -> Losses:
        """Returns the losses of the step, summed over all processes."""
        cross_entropy = float(processes.sum(self._cross_entropy))
        if not self._rollouts:
            return Losses(None, cross_entropy)
        loss, gap = processes.sum(torch.stack([self._policy_gradient, self._gap])).tolist()
        statistics = None
        if self._ratios:
            statistics = ratio_statistics(processes.gather(torch.cat(self._ratios)), self._cap)
        policy_gradient = PolicyGradient(loss, gap / counts.rollout_tokens, statistics)
        return Losses(policy_gradient, cross_entropy)
