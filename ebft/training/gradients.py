"""The gradients of single documents, and which part of the loss drives a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ebft.distributed.processes import ONE_PROCESS, Processes
from ebft.models.layers import eager, recompute_layers
from ebft.scoring.estimators import gradient_noise
from ebft.training.losses import Counts, count, cross_entropy, policy_gradient, policy_log_probs
from ebft.training.objective import ObjectiveOptions

if TYPE_CHECKING:
    from torch.nn import Parameter
    from transformers import PreTrainedModel

    from ebft.rollout.records import Contexts, Scored

Gradient = tuple[Tensor, ...]
"""A gradient in the policy's trained weights, in their order."""
OfDocument = Callable[["Contexts", slice], Tensor]
"""The loss of one of a step's documents, from its place: its share of the step's loss."""


def trained_weights(policy: PreTrainedModel) -> list[Parameter]:
    """Returns the policy's weights that are trained, in the order of a `Gradient`."""
    return [p for p in policy.parameters() if p.requires_grad]


def policy_gradients(
    policy: PreTrainedModel,
    contexts: Contexts,
    scored: Scored,
    objective: ObjectiveOptions,
    *,
    precision: torch.dtype,
    gradient_checkpointing: bool,
) -> Iterator[Gradient]:
    """Yields the gradient of L_FM of each document, so scaled that their mean is the step's.

    They are taken at the policy's current weights, which must be those that the rollouts were
    sampled from. The policy's `.grad` is not changed.
    """
    counts = count(contexts, scored, objective, ONE_PROCESS)
    loss = _policy_gradient_loss(policy, scored, objective, counts, precision)
    return _each(policy, contexts, loss, gradient_checkpointing)


def cross_entropy_gradients(
    policy: PreTrainedModel,
    contexts: Contexts,
    objective: ObjectiveOptions,
    *,
    precision: torch.dtype,
    gradient_checkpointing: bool,
) -> Iterator[Gradient]:
    """Yields the gradient of L_CE, without γ, of each document, as `policy_gradients` does."""
    counts = count(contexts, None, objective, ONE_PROCESS)
    loss = _cross_entropy_loss(policy, objective, counts, precision)
    return _each(policy, contexts, loss, gradient_checkpointing)


def _policy_gradient_loss(
    policy: PreTrainedModel,
    scored: Scored,
    objective: ObjectiveOptions,
    counts: Counts,
    precision: torch.dtype,
) -> OfDocument:
    def loss(one: Contexts, place: slice) -> Tensor:
        rollouts = scored.rollouts.of(one, place)
        log_probs = policy_log_probs(
            policy, one, rollouts, precision=precision, train_documents=False
        )
        return policy_gradient(
            log_probs, rollouts, scored.advantages[place], objective, counts
        ).loss

    return loss


def _cross_entropy_loss(
    policy: PreTrainedModel, objective: ObjectiveOptions, counts: Counts, precision: torch.dtype
) -> OfDocument:
    def loss(one: Contexts, _place: slice) -> Tensor:
        log_probs = policy_log_probs(
            policy, one, None, precision=precision, entropies=objective.needs_entropies
        )
        return cross_entropy(log_probs, one, objective, counts).loss

    return loss


def _each(
    policy: PreTrainedModel,
    contexts: Contexts,
    loss: OfDocument,
    gradient_checkpointing: bool,
) -> Iterator[Gradient]:
    parameters = trained_weights(policy)
    # Compiled layers would compile again for documents of other lengths.
    with eager(policy), recompute_layers(policy, enabled=gradient_checkpointing):
        for place, one in contexts.one_by_one().split():
            # A document's share of the step's loss is divided by the counts of all.
            of_document = len(contexts.documents) * loss(one, place)
            yield torch.autograd.grad(of_document, parameters)


def measure_gradients(
    policy: PreTrainedModel,
    contexts: Contexts,
    scored: Scored | None,
    objective: ObjectiveOptions,
    *,
    precision: torch.dtype,
    gradient_checkpointing: bool,
    processes: Processes = ONE_PROCESS,
) -> dict[str, float]:
    """Returns the norms of the gradients of L_FM and γ·L_CE, their ratio, and their noise scales.

    Noise scales are in documents (`ebft.scoring.estimators`); a step of one document has none.
    Without rollouts (`scored` is None), the policy gradient is left out. The figures are those of
    the whole step, whose documents are divided over the processes.
    """

    def squares(loss: OfDocument) -> Squares:
        if processes.size == 1:
            return _summed(_each(policy, contexts, loss, gradient_checkpointing))
        from ebft.training.sharded_gradients import sum_sharded

        documents = processes.size * len(contexts.documents)
        squared_norms, squared_sum = sum_sharded(
            policy, contexts, loss, gradient_checkpointing, processes
        )
        return Squares([documents**2 * it for it in squared_norms], squared_sum)

    parts = {}
    if scored is not None:
        counts = count(contexts, scored, objective, processes)
        parts["policy_gradient"] = squares(
            _policy_gradient_loss(policy, scored, objective, counts, precision)
        )
    counts = count(contexts, None, objective, processes)
    parts["cross_entropy"] = squares(
        _cross_entropy_loss(policy, objective, counts, precision)
    ).scaled(objective.gamma)
    measured = {f"{name}_grad_norm": of.mean_squared**0.5 for name, of in parts.items()}
    if scored is not None and measured["cross_entropy_grad_norm"] > 0:
        policy_gradient_norm, cross_entropy_norm = measured.values()
        measured["grad_norm_ratio"] = policy_gradient_norm / cross_entropy_norm
    for name, of in parts.items():
        if len(of.squared_norms) > 1:
            noise = gradient_noise(of.squared_norms, of.mean_squared)
            measured[f"{name}_noise_scale"] = noise.scale
    return measured


class Squares(NamedTuple):
    """|g_k|² of the gradient of each of K documents, and |1/K Σ g_k|² of their mean."""

    squared_norms: list[float]
    mean_squared: float

    def scaled(self, by: float) -> Squares:
        """Returns those of the gradients times `by`."""
        return Squares([by**2 * it for it in self.squared_norms], by**2 * self.mean_squared)


def _summed(gradients: Iterator[Gradient]) -> Squares:
    first = next(gradients)
    total, squared_norms = [torch.zeros_like(g) for g in first], []
    for gradient in chain([first], gradients):
        squared_norms.append(_squared(gradient))
        torch._foreach_add_(total, list(gradient))
    return Squares(squared_norms, _squared(total) / len(squared_norms) ** 2)


def _squared(gradient: Iterable[Tensor]) -> float:
    """|g|². The host waits for the device once, not for each weight."""
    squared: list[float] = torch.stack([g.square().sum() for g in gradient]).tolist()
    return sum(squared)
