"""Fine-tuning, the whole algorithm: one pass of `train`'s loop is one step.

EBFT, RLVR and SFT differ only in their parts: a reward of features, a reward of a verifier, and no
reward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ebft.distributed.processes import ONE_PROCESS, Processes
from ebft.models.layers import recompute_layers
from ebft.rollout.records import Contexts, Scored, Terms
from ebft.training.checks import Contract, check_gradients, check_log_probs, sync_figures
from ebft.training.losses import (
    Losses,
    Totals,
    count,
    cross_entropy,
    policy_gradient,
    policy_log_probs,
)
from ebft.training.objective import ObjectiveOptions, advantages_to_go
from ebft.training.parts import NOBODY, LoopParts, Observer, RolloutParts, Step

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def train(loop: LoopParts, steps: range, observer: Observer = NOBODY) -> Iterator[Step]:
    """Runs the optimizer steps, yielding a `Step` after each.

    Raises `NumericalError` for values that are not finite, and what the parts raise.
    """
    parts, optimizer = loop.rollout_parts, loop.optimizer
    for step in steps:
        contexts = loop.contexts(step)  # P of them
        scored = None
        if parts is not None:
            observer.announce("sampling")
            scored = sample_and_score(parts, contexts, loop.processes, step=step)

        losses = accumulate_gradients(
            loop.policy, contexts, scored, loop.objective,
            precision=loop.precision, gradient_checkpointing=loop.gradient_checkpointing,
            keep_logits=loop.keep_logits, step=step, processes=loop.processes,
            announce=observer.announce,
        )  # fmt: skip
        grad_norm = clip_gradients(loop.policy.parameters(), loop.clip_grad_norm)
        check_gradients(grad_norm, contexts, step=step)
        observer.before_update(step, contexts, scored)

        learning_rate = optimizer.param_groups[0]["lr"]
        optimizer.step()
        loop.lr_scheduler.step()
        optimizer.zero_grad(set_to_none=True)
        sync = {}
        if parts is not None:
            sync = sync_figures(parts.sampler.sync(loop.policy, step=step))
        yield Step(step, contexts, scored, losses, float(grad_norm), learning_rate, sync)


def sample_and_score(
    parts: RolloutParts, contexts: Contexts, processes: Processes, *, step: int
) -> Scored:
    """Contexts → rollouts [P, n, G] → features [P, n, D] → terms [P, n], [P, n, n] → advantages.

    Raises `PluginError` for a part that returns a wrong type or shape.
    """
    checked = Contract(contexts, n=parts.sampler.n, step=step)
    rollouts = checked.rollouts(parts.sampler(contexts, step=step))

    features = None
    if parts.feature_map is not None:
        features = checked.features(parts.feature_map(rollouts), key="feature_map")
        if features.per_token:  # each token is a row until advantages are computed
            features = features.by_token(contexts.rollout_length)
            checked = replace(checked, rows_per_context=contexts.rollout_length)
        for i, transform in enumerate(parts.transforms):
            features = checked.features(transform(features), key=f"transforms.{i}")

    terms = parts.reward(rollouts, features)
    checked = checked.of_rows(terms)  # a reward may score each token by itself
    terms = checked.terms(terms)
    # A baseline may compare contexts, so it needs those of the whole step.
    everyones = Terms(processes.gather(terms.unary), processes.gather(terms.pairwise))
    everyones_advantages = checked.one_for_each(everyones.unary, parts.baseline(everyones))
    advantages = checked.advantages(processes.own(everyones_advantages, like=terms.unary))
    if checked.rows_per_context > 1:
        advantages = advantages_to_go(advantages, checked.rows_per_context)
    return Scored(rollouts, features, terms, advantages)


def accumulate_gradients(
    policy: PreTrainedModel,
    contexts: Contexts,
    scored: Scored | None,
    objective: ObjectiveOptions,
    *,
    precision: torch.dtype,
    gradient_checkpointing: bool,
    keep_logits: bool = False,
    step: int,
    processes: Processes = ONE_PROCESS,
    announce: Callable[[str], None] = lambda _: None,
) -> Losses:
    """Adds ∇(L_FM + γ·L_CE) to the policy's gradients, a micro-batch of the contexts at a time.

    Each part of the loss is a sum divided by a count over the *whole* step (contexts for the
    policy gradient, tokens for the cross-entropy), so the result does not depend on the division
    into micro-batches and processes. Returns the losses of the whole step. Without rollouts
    (`scored` is None) the loss is γ·L_CE. At γ = 0, L_CE is computed for the log, without backward.
    """
    counts = count(contexts, scored, objective, processes)
    totals = Totals(objective, contexts.tokens.device)
    with recompute_layers(policy, enabled=gradient_checkpointing):
        for number, (place, micro_batch) in enumerate(contexts.split(), 1):
            announce(f"training {number}/{len(contexts.micro_batches or [contexts])}")
            rollouts = None if scored is None else scored.rollouts.of(micro_batch, place)
            log_probs = policy_log_probs(
                policy, micro_batch, rollouts,
                precision=precision, train_documents=objective.gamma > 0,
                entropies=objective.needs_entropies, keep_logits=keep_logits,
            )  # fmt: skip
            check_log_probs(log_probs, micro_batch, step=step)

            # −1/tokens Σ log p(y_t | y_<t)
            ce_loss, nats = cross_entropy(log_probs, micro_batch, objective, counts)
            totals.add_documents(nats)
            loss = objective.gamma * ce_loss
            if rollouts is not None and scored is not None:
                # Its gradient is that of L_FM: −1/P Σ_c 1/n Σ_j A_j log p(ŷ_j | c)
                # (paper, equation 8).
                pg_loss, ratios = policy_gradient(
                    log_probs, rollouts, scored.advantages[place], objective, counts
                )
                totals.add_rollouts(pg_loss, ratios, log_probs, rollouts)
                loss = pg_loss + loss
            loss.backward()  # type: ignore[no-untyped-call]
    return totals.of_all(counts, processes)


def clip_gradients(parameters: Iterable[nn.Parameter], largest: float) -> Float[Tensor, ""]:
    """Scales all gradients so that their norm is at most `largest`; returns the norm before."""
    updated = [p for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm([cast(Tensor, p.grad) for p in updated])
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    nn.utils.clip_grads_with_norm_(updated, largest, norm)
    return norm
