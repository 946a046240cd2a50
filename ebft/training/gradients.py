"""Which part of the loss drives a step: the norm and the noise of each part's gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ebft.distributed.processes import ONE_PROCESS
from ebft.models.layers import eager, recompute_layers
from ebft.scoring.estimators import gradient_noise
from ebft.training.losses import count, cross_entropy, policy_gradient, policy_log_probs
from ebft.training.objective import ObjectiveOptions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ebft.rollout.records import Contexts, Scored


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

    Gradients are computed for one document at a time, at the policy's current weights, which must
    be those that the rollouts were sampled from. The policy's `.grad` is not changed. Noise scales
    are in documents (`ebft.scoring.estimators`); a step of one document has none. Without rollouts
    (`scored` is None), the policy gradient is left out.
    """
    documents = len(contexts.documents)
    counts = count(contexts, scored, objective, ONE_PROCESS)
    parameters = [p for p in policy.parameters() if p.requires_grad]
    names = ["cross_entropy"] if scored is None else ["policy_gradient", "cross_entropy"]
    parts = {name: _Sum(parameters) for name in names}
    # Compiled layers cannot go backward twice.
    with eager(policy), recompute_layers(policy, enabled=gradient_checkpointing):
        for place, one in contexts.one_by_one().split():
            rollouts = None if scored is None else scored.rollouts.of(one, place)
            log_probs = policy_log_probs(policy, one, rollouts, precision=precision)
            losses = {}
            if rollouts is not None and scored is not None:
                losses["policy_gradient"] = policy_gradient(
                    log_probs, rollouts, scored.advantages[place], objective, counts
                ).loss
            losses["cross_entropy"] = objective.gamma * cross_entropy(
                log_probs, one, objective, counts
            )
            for name, loss in losses.items():
                # Scaled so that the mean over documents is the step's gradient.
                gradients = torch.autograd.grad(
                    documents * loss, parameters, retain_graph=name == "policy_gradient"
                )
                parts[name].add(gradients)
    measured = {f"{name}_grad_norm": total.mean_squared() ** 0.5 for name, total in parts.items()}
    if scored is not None and measured["cross_entropy_grad_norm"] > 0:
        policy_gradient_norm, cross_entropy_norm = measured.values()
        measured["grad_norm_ratio"] = policy_gradient_norm / cross_entropy_norm
    if documents > 1:
        for name, total in parts.items():
            noise = gradient_noise(total.squared_norms, total.mean_squared())
            measured[f"{name}_noise_scale"] = noise.scale
    return measured


class _Sum:
    """The sum of gradients, and the squared norm of each."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._sum = [torch.zeros_like(p) for p in parameters]
        self.squared_norms: list[float] = []

    def add(self, gradients: Sequence[Tensor]) -> None:
        self.squared_norms.append(sum(float(g.square().sum()) for g in gradients))
        torch._foreach_add_(self._sum, list(gradients))

    def mean_squared(self) -> float:
        """|1/K Σ g_k|²."""
        return sum(float(g.square().sum()) for g in self._sum) / len(self.squared_norms) ** 2
