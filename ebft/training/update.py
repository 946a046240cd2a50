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
from ebft.rollout.records import Rollouts
from ebft.training.finite import check_finite
from ebft.training.policy import tree_log_probs

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Losses(NamedTuple):
    """The two parts of the loss over the whole step, and what the trainer saw of the sampler.

    `sampler_gap` is the mean |log p(trainer) − log p(sampler)| over rollout tokens: rounding if
    both have the same weights, much more if the sampler's are stale. `ratios` are the statistics of
    the importance ratios, if the objective weighs with them.
    """

    policy_gradient: float
    cross_entropy: float
    sampler_gap: float
    ratios: RatioStatistics | None


def accumulate_gradients(
    policy: PreTrainedModel,
    rollouts: Rollouts,
    advantages: Float[Tensor, "P n"],
    objective: ObjectiveOptions,
    *,
    micro_batch: int,
    precision: torch.dtype,
    gradient_checkpointing: bool,
    step: int,
) -> Losses:
    """Adds ∇(L_FM + γ·L_CE) to the policy's gradients, `micro_batch` documents at a time.

    Each part of the loss is a sum divided by a count over the *whole* step (contexts for the
    policy gradient, tokens for the cross-entropy), so the result does not depend on how the step
    is divided.
    """
    contexts = rollouts.contexts
    tokens = int(cross_entropy_mask(contexts, objective.cross_entropy_on).sum())
    importance = objective.importance
    seen: list[Tensor] = []
    total = torch.zeros(3, dtype=torch.float64)
    with checkpointing(policy, enabled=gradient_checkpointing):
        for place, part in rollouts.split(micro_batch):
            with autocast(part.tokens.device, precision):
                log_probs = tree_log_probs(policy, part)
            check_finite("log-probs of rollouts", log_probs.rollouts, part.contexts, step=step)
            check_finite(
                "log-probs of documents", log_probs.documents, part.contexts, step=step,
                row=torch.arange(len(part.contexts.documents)),
            )  # fmt: skip
            weight = None
            if importance.level != "off":
                ratio = ratios(log_probs.rollouts, part.log_probs, part.mask, importance.level)
                weight = weights(ratio, importance)
                counted = (
                    part.mask if ratio.shape == part.mask.shape else torch.ones_like(ratio).bool()
                )
                seen.append(ratio[counted])
            policy_gradient = policy_gradient_loss(
                log_probs.rollouts, part.mask, advantages[place],
                contexts=len(contexts), reduction=objective.reduction, weights=weight,
            )  # fmt: skip
            ce_mask = cross_entropy_mask(part.contexts, objective.cross_entropy_on)
            cross_entropy = cross_entropy_loss(log_probs.documents, ce_mask, tokens=tokens)
            (policy_gradient + objective.gamma * cross_entropy).backward()  # type: ignore[no-untyped-call]
            gap = (log_probs.rollouts.detach() - part.log_probs).abs() * part.mask
            total += (
                torch.stack([policy_gradient, cross_entropy, gap.sum() / rollouts.mask.sum()])
                .detach()
                .cpu()
            )
    statistics = ratio_statistics(torch.cat(seen), importance.cap) if seen else None
    loss, cross_entropy_total, sampler_gap = total.tolist()
    return Losses(loss, cross_entropy_total, sampler_gap, statistics)
