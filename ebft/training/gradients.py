"""The gradients of single documents, and which part of the loss drives a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, TypedDict

import torch
from torch import Tensor

from ebft.distributed.processes import ONE_PROCESS
from ebft.models.layers import eager, recompute_layers
from ebft.scoring.estimators import gradient_noise
from ebft.training.losses import count, cross_entropy, policy_gradient, policy_log_probs
from ebft.training.objective import ObjectiveOptions

if TYPE_CHECKING:
    from torch.nn import Parameter
    from transformers import PreTrainedModel

    from ebft.rollout.records import Contexts, Scored

Gradient = tuple[Tensor, ...]
"""A gradient in the policy's trained weights, in their order."""


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

    def loss(one: Contexts, place: slice) -> Tensor:
        rollouts = scored.rollouts.of(one, place)
        log_probs = policy_log_probs(
            policy, one, rollouts, precision=precision, train_documents=False
        )
        return policy_gradient(
            log_probs, rollouts, scored.advantages[place], objective, counts
        ).loss

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

    def loss(one: Contexts, _place: slice) -> Tensor:
        log_probs = policy_log_probs(
            policy, one, None, precision=precision, entropies=objective.needs_entropies
        )
        return cross_entropy(log_probs, one, objective, counts).loss

    return _each(policy, contexts, loss, gradient_checkpointing)


def _each(
    policy: PreTrainedModel,
    contexts: Contexts,
    loss: Callable[[Contexts, slice], Tensor],
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
) -> dict[str, float]:
    """Returns the norms of the gradients of L_FM and γ·L_CE, their ratio, and their noise scales.

    Noise scales are in documents (`ebft.scoring.estimators`); a step of one document has none.
    Without rollouts (`scored` is None), the policy gradient is left out.
    """
    how: _How = {"precision": precision, "gradient_checkpointing": gradient_checkpointing}
    parts = {}
    if scored is not None:
        parts["policy_gradient"] = _summed(
            policy_gradients(policy, contexts, scored, objective, **how)
        )
    parts["cross_entropy"] = _summed(
        cross_entropy_gradients(policy, contexts, objective, **how), scale=objective.gamma
    )
    measured = {f"{name}_grad_norm": total.mean_squared() ** 0.5 for name, total in parts.items()}
    if scored is not None and measured["cross_entropy_grad_norm"] > 0:
        policy_gradient_norm, cross_entropy_norm = measured.values()
        measured["grad_norm_ratio"] = policy_gradient_norm / cross_entropy_norm
    if len(contexts.documents) > 1:
        for name, total in parts.items():
            noise = gradient_noise(total.squared_norms, total.mean_squared())
            measured[f"{name}_noise_scale"] = noise.scale
    return measured


class _How(TypedDict):
    precision: torch.dtype
    gradient_checkpointing: bool


def _summed(gradients: Iterator[Gradient], scale: float = 1.0) -> _Sum:
    first = next(gradients)
    total = _Sum(first, scale)
    for gradient in chain([first], gradients):
        total.add(gradient)
    return total


class _Sum:
    """The sum of gradients, and the squared norm of each, times `scale`."""

    def __init__(self, like: Gradient, scale: float) -> None:
        self._sum = [torch.zeros_like(g) for g in like]
        self._scale = scale
        self.squared_norms: list[float] = []

    def add(self, gradient: Gradient) -> None:
        self.squared_norms.append(self._scale**2 * _squared(gradient))
        torch._foreach_add_(self._sum, list(gradient))

    def mean_squared(self) -> float:
        """|1/K Σ g_k|²."""
        return self._scale**2 * _squared(self._sum) / len(self.squared_norms) ** 2


def _squared(gradient: Iterable[Tensor]) -> float:
    """|g|². The host waits for the device once, not for each weight."""
    squared: list[float] = torch.stack([g.square().sum() for g in gradient]).tolist()
    return sum(squared)
