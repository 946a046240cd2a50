"""Gradients of one optimizer step, gathered over micro-batches of documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ebft.importance import RatioStatistics, ratio_statistics
from ebft.models.checkpointing import checkpointing
from ebft.objective import ObjectiveOptions
from ebft.processes import ONE_PROCESS, Processes
from ebft.rollout.records import Contexts, Scored
from ebft.training.check_finite import check_finite
from ebft.training.losses import Counts, DocumentLoss, RolloutLoss, count, micro_batch_losses

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
    processes: Processes = ONE_PROCESS,
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
            of_rollouts, of_documents = micro_batch_losses(
                policy, micro_batch, place, scored, objective, counts,
                precision=precision, train_documents=objective.gamma > 0,
            )  # fmt: skip
            check_log_probs(of_rollouts, of_documents, micro_batch, step=step)
            loss = objective.gamma * of_documents.loss
            if of_rollouts is not None:
                loss = of_rollouts.loss + loss
            loss.backward()  # type: ignore[no-untyped-call]
            totals.add(of_rollouts, of_documents)
    return totals.of_all(counts, processes)


def check_log_probs(
    of_rollouts: RolloutLoss | None, of_documents: DocumentLoss, contexts: Contexts, *, step: int
) -> None:
    """Raises `NumericalError` naming the document if any of them is not finite."""
    if of_rollouts is not None:
        check_finite("log-probs of rollouts", of_rollouts.log_probs, contexts, step=step)
    row = torch.arange(len(contexts.documents))
    log_probs = of_documents.log_probs
    check_finite("log-probs of documents", log_probs, contexts, step=step, row=row)


class _Totals:
    """The losses of a step and what is said of its rollouts, added up over its micro-batches."""

    def __init__(self, objective: ObjectiveOptions) -> None:
        self._cap = objective.importance.cap
        self._cross_entropy, self._policy_gradient, self._gap = torch.zeros(3, dtype=torch.float64)
        self._rollouts, self._ratios = False, list[Tensor]()

    def add(self, of_rollouts: RolloutLoss | None, of_documents: DocumentLoss) -> None:
        self._cross_entropy += of_documents.loss.detach().cpu()
        if of_rollouts is None:
            return
        self._rollouts = True
        self._policy_gradient += of_rollouts.loss.detach().cpu()
        sampled = of_rollouts.rollouts
        gap = (of_rollouts.log_probs.detach() - sampled.log_probs).where(sampled.mask, 0)
        self._gap += gap.abs().sum().cpu()
        if of_rollouts.ratios is not None:
            self._ratios.append(of_rollouts.ratios)

    def of_all(self, counts: Counts, processes: Processes) -> Losses:
        """Over all processes."""
        cross_entropy = float(processes.sum(self._cross_entropy))
        if not self._rollouts:
            return Losses(None, cross_entropy)
        loss, gap = processes.sum(torch.stack([self._policy_gradient, self._gap])).tolist()
        statistics = None
        if self._ratios:
            statistics = ratio_statistics(processes.gather(torch.cat(self._ratios)), self._cap)
        of_rollouts = PolicyGradient(loss, gap / counts.rollout_tokens, statistics)
        return Losses(of_rollouts, cross_entropy)
