"""Gradients of one optimizer step, gathered over micro-batches of documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ebft.importance import RatioStatistics, importance_weights, ratio_statistics
from ebft.models.checkpointing import checkpointing
from ebft.models.forward import autocast
from ebft.objective import (
    ObjectiveOptions,
    cross_entropy_loss,
    cross_entropy_mask,
    policy_gradient_loss,
)
from ebft.processes import ALONE, Processes
from ebft.rollout.records import Contexts, Rollouts, Scored
from ebft.training.finite import check_finite
from ebft.training.policy import document_log_probs, tree_log_probs

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PolicyGradient(NamedTuple):
    """The policy gradient's loss over the whole step, and what the trainer saw of the sampler.

    `sampler_gap` is the mean |log p(trainer) − log p(sampler)| over rollout tokens: rounding if
    both have the same weights, much more if the sampler's are stale. `ratios` are the statistics of
    the importance ratios, if the objective weighs with them.
    """

    loss: float
    sampler_gap: float
    ratios: RatioStatistics | None


class Losses(NamedTuple):
    """The two parts of the loss over the whole step; no policy gradient without rollouts."""

    policy_gradient: PolicyGradient | None
    cross_entropy: float


def accumulate_gradients(
    policy: PreTrainedModel,
    contexts: Contexts,
    scored: Scored | None,
    objective: ObjectiveOptions,
    *,
    precision: torch.dtype,
    gradient_checkpointing: bool,
    step: int,
    processes: Processes = ALONE,
) -> Losses:
    """Adds ∇(L_FM + γ·L_CE) to the policy's gradients, a micro-batch of the contexts at a time.

    Each part of the loss is a sum divided by a count over the *whole* step (contexts for the
    policy gradient, tokens for the cross-entropy), so the result does not depend on how the step
    is divided, over micro-batches or over processes. Losses are those of the whole step. Without
    rollouts (`scored` is None) the loss is γ·L_CE. At γ = 0, L_CE is computed all the same, to be
    looked at, but takes no part in backward.
    """
    counts = count(contexts, scored, objective, processes)
    totals = _Totals(objective)
    with checkpointing(policy, enabled=gradient_checkpointing):
        for place, micro_batch in contexts.split():
            policy_gradient: Tensor | float = 0.0
            if scored is None:
                with autocast(micro_batch.tokens.device, precision):
                    documents = document_log_probs(policy, micro_batch)
            else:
                rollouts = scored.rollouts.of(micro_batch, place)
                with autocast(micro_batch.tokens.device, precision):
                    sampled, documents = tree_log_probs(
                        policy, rollouts, train_documents=objective.gamma > 0
                    )
                check_finite("log-probs of rollouts", sampled, micro_batch, step=step)
                importance = importance_weights(sampled, rollouts, objective.importance)
                policy_gradient = policy_gradient_loss(
                    sampled, rollouts.mask, scored.advantages[place],
                    contexts=counts.contexts, reduction=objective.reduction,
                    weights=importance.weights,
                )  # fmt: skip
                totals.add_rollouts(policy_gradient, sampled, rollouts, importance.ratios)
            check_finite(
                "log-probs of documents", documents, micro_batch, step=step,
                row=torch.arange(len(micro_batch.documents)),
            )  # fmt: skip
            ce_mask = cross_entropy_mask(micro_batch, objective.cross_entropy_on)
            cross_entropy = cross_entropy_loss(documents, ce_mask, tokens=counts.tokens)
            loss = policy_gradient + objective.gamma * cross_entropy
            loss.backward()  # type: ignore[no-untyped-call]
            totals.cross_entropy += cross_entropy.detach().cpu()
    return totals.of_all(counts, processes)


class Counts(NamedTuple):
    """Of the whole step: contexts, tokens of rollouts, tokens under the cross-entropy."""

    contexts: int
    rollout_tokens: int
    tokens: int


def count(
    contexts: Contexts, scored: Scored | None, objective: ObjectiveOptions, processes: Processes
) -> Counts:
    """What the losses of all processes are divided by."""
    tokens = cross_entropy_mask(contexts, objective.cross_entropy_on).sum()
    sampled = torch.zeros_like(tokens) if scored is None else scored.rollouts.mask.sum()
    mine = torch.stack([torch.full_like(tokens, len(contexts)), sampled, tokens])
    return Counts(*processes.sum(mine).tolist())


class _Totals:
    """The losses of a step and what is said of its rollouts, added up over its micro-batches."""

    def __init__(self, objective: ObjectiveOptions) -> None:
        self._cap = objective.importance.cap
        self.cross_entropy, self._policy_gradient, self._gap = torch.zeros(3, dtype=torch.float64)
        self._rollouts, self._ratios = False, list[Tensor]()

    def add_rollouts(
        self,
        loss: Float[Tensor, ""],
        log_probs: Float[Tensor, "P n G"],
        rollouts: Rollouts,
        ratios: Float[Tensor, " N"] | None,
    ) -> None:
        self._rollouts = True
        self._policy_gradient += loss.detach().cpu()
        gap = (log_probs.detach() - rollouts.log_probs).where(rollouts.mask, 0)
        self._gap += gap.abs().sum().cpu()
        if ratios is not None:
            self._ratios.append(ratios)

    def of_all(self, counts: Counts, processes: Processes) -> Losses:
        """Over all processes."""
        cross_entropy = float(processes.sum(self.cross_entropy))
        if not self._rollouts:
            return Losses(None, cross_entropy)
        loss, gap = processes.sum(torch.stack([self._policy_gradient, self._gap])).tolist()
        statistics = None
        if self._ratios:
            statistics = ratio_statistics(processes.gather(torch.cat(self._ratios)), self._cap)
        of_rollouts = PolicyGradient(loss, gap / counts.rollout_tokens, statistics)
        return Losses(of_rollouts, cross_entropy)
