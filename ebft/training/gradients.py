"""Which part of the loss drives a step: the size and the noise of each part's gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ebft.models.forward import autocast
from ebft.objective import (
    ObjectiveOptions,
    cross_entropy_loss,
    cross_entropy_mask,
    policy_gradient_loss,
)
from ebft.scoring.gradient_noise import gradient_noise
from ebft.training.policy import tree_log_probs

if TYPE_CHECKING:
    from jaxtyping import Float
    from transformers import PreTrainedModel

    from ebft.rollout.records import Rollouts


def measure_gradients(
    policy: PreTrainedModel,
    rollouts: Rollouts,
    advantages: Float[Tensor, "P n"],
    objective: ObjectiveOptions,
    *,
    precision: torch.dtype,
) -> dict[str, float]:
    """Norms of the gradients of L_FM and of γ·L_CE, their ratio, and each one's noise scale.

    One document at a time, at the policy's present weights; its gradients are left as they were.
    Noise scales are in documents: `scoring.gradient_noise`. Keys of a single document's step have
    no noise scale.
    """
    contexts = rollouts.contexts
    count = len(contexts.documents)
    tokens = int(cross_entropy_mask(contexts, objective.cross_entropy_on).sum())
    parameters = [p for p in policy.parameters() if p.requires_grad]
    parts = {"policy_gradient": _Sum(parameters), "cross_entropy": _Sum(parameters)}
    for place, part in rollouts.split(1):
        with autocast(part.tokens.device, precision):
            log_probs = tree_log_probs(policy, part)
        mask = cross_entropy_mask(part.contexts, objective.cross_entropy_on)
        losses = {
            "policy_gradient": policy_gradient_loss(
                log_probs.rollouts, part.mask, advantages[place],
                contexts=len(contexts), reduction=objective.reduction,
            ),
            "cross_entropy": objective.gamma
            * cross_entropy_loss(log_probs.documents, mask, tokens=tokens),
        }  # fmt: skip
        for name, loss in losses.items():
            # A document's gradient is as large as the whole step's would be of its like.
            gradients = torch.autograd.grad(
                count * loss, parameters, retain_graph=name == "policy_gradient"
            )
            parts[name].add(gradients)
    measured = {f"{name}_grad_norm": total.mean_squared() ** 0.5 for name, total in parts.items()}
    if measured["cross_entropy_grad_norm"] > 0:
        policy_gradient, cross_entropy = measured.values()
        measured["grad_norm_ratio"] = policy_gradient / cross_entropy
    if count > 1:
        for name, total in parts.items():
            noise = gradient_noise(total.squared_norms, total.mean_squared())
            measured[f"{name}_noise_scale"] = noise.scale
    return measured


class _Sum:
    """A sum of gradients, and the squared norm of each."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._sum = [torch.zeros_like(p) for p in parameters]
        self.squared_norms: list[float] = []

    def add(self, gradients: Sequence[Tensor]) -> None:
        self.squared_norms.append(sum(float(g.square().sum()) for g in gradients))
        torch._foreach_add_(self._sum, list(gradients))

    def mean_squared(self) -> float:
        """|1/K Σ g_k|²."""
        return sum(float(g.square().sum()) for g in self._sum) / len(self.squared_norms) ** 2
