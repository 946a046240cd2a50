"""Gradients of one optimizer step, gathered over micro-batches of documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ebft.importance import RatioStatistics, ratio_statistics, ratios, weights
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
    policy_gradient = None if scored is None else _Sum(scored, objective, counts)
    cross_entropy_total = torch.zeros((), dtype=torch.float64)
    with checkpointing(policy, enabled=gradient_checkpointing):
        for place, part in contexts.split():
            loss: Tensor | float = 0.0
            if policy_gradient is None:
                with autocast(part.tokens.device, precision):
                    documents = document_log_probs(policy, part)
            else:
                rollouts = policy_gradient.scored.rollouts.of(part, place)
                with autocast(part.tokens.device, precision):
                    sampled, documents = tree_log_probs(
                        policy, rollouts, train_documents=objective.gamma > 0
                    )
                check_finite("log-probs of rollouts", sampled, part, step=step)
                loss = policy_gradient.add(sampled, rollouts, place)
            check_finite(
                "log-probs of documents", documents, part, step=step,
                row=torch.arange(len(part.documents)),
            )  # fmt: skip
            ce_mask = cross_entropy_mask(part, objective.cross_entropy_on)
            cross_entropy = cross_entropy_loss(documents, ce_mask, tokens=counts.tokens)
            (loss + objective.gamma * cross_entropy).backward()  # type: ignore[no-untyped-call]
            cross_entropy_total += cross_entropy.detach().cpu()
    return Losses(
        None if policy_gradient is None else policy_gradient.total(processes),
        float(processes.sum(cross_entropy_total)),
    )


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


class _Sum:
    """The policy gradient of a step, added up over its micro-batches."""

    def __init__(self, scored: Scored, objective: ObjectiveOptions, counts: Counts) -> None:
        self.scored, self._objective, self._counts = scored, objective, counts
        self._loss, self._gap = torch.zeros(2, dtype=torch.float64)
        self._ratios: list[Tensor] = []

    def add(
        self, log_probs: Float[Tensor, "P n G"], rollouts: Rollouts, place: slice
    ) -> Float[Tensor, ""]:
        """The loss of the micro-batch at `place`."""
        importance, mask, weight = self._objective.importance, rollouts.mask, None
        if importance.level != "off":
            ratio = ratios(log_probs, rollouts.log_probs, mask, importance.level)
            weight = weights(ratio, importance)
            counted = mask if ratio.shape == mask.shape else torch.ones_like(ratio).bool()
            self._ratios.append(ratio[counted])
        loss = policy_gradient_loss(
            log_probs, mask, self.scored.advantages[place],
            contexts=self._counts.contexts, reduction=self._objective.reduction,
            weights=weight,
        )  # fmt: skip
        self._loss += loss.detach().cpu()
        self._gap += ((log_probs.detach() - rollouts.log_probs).abs() * mask).sum().cpu()
        return loss

    def total(self, processes: Processes) -> PolicyGradient:
        loss, gap = processes.sum(torch.stack([self._loss, self._gap])).tolist()
        statistics = None
        if self._ratios:
            cap = self._objective.importance.cap
            statistics = ratio_statistics(processes.gather(torch.cat(self._ratios)), cap)
        return PolicyGradient(loss, gap / self._counts.rollout_tokens, statistics)
