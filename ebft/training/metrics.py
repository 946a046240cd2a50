"""The numbers of one step that are shown and logged."""

from __future__ import annotations

import psutil
import torch

from ebft.scoring.cfm import unbiased_cfm
from ebft.training.loop import Step


def step_metrics(step: Step, *, seconds: float) -> dict[str, float]:
    """Every logged figure of a step, by name.

    `cfm` is the unbiased feature-matching loss of this step's documents in the features that the
    reward saw (undefined, so absent, for n = 1); `alignment` and `diversity` are the means of the
    unary and pairwise terms, whose sum is the mean reward.
    """
    rollouts, terms = step.rollouts, step.terms
    n = rollouts.tokens.shape[1]
    unary = float(terms.unary.mean())
    reward = float(terms.reward().mean())
    metrics = {
        "ce": step.losses.cross_entropy,
        "reward": reward,
        "alignment": unary,
        "diversity": reward - unary,
        "advantage_std": float(step.advantages.std()),
        "policy_gradient_loss": step.losses.policy_gradient,
        "grad_norm": step.grad_norm,
        "sampler_gap": step.losses.sampler_gap,
        "learning_rate": step.learning_rate,
        "rollout_tokens": float(rollouts.mask.sum()),
        "tokens_per_second": trained_tokens(step) / seconds,
        "memory_gib": memory_in_use(rollouts.tokens.device) / 2**30,
        **step.sync,
    }
    if step.losses.ratios is not None:
        named = step.losses.ratios._asdict()
        metrics |= {f"importance_{name}": value for name, value in named.items()}
    if n > 1:
        metrics = {"cfm": float(unbiased_cfm(step.features).mean()), **metrics}
    return metrics


def trained_tokens(step: Step) -> int:
    """Tokens that went through forward and backward: the documents and their rollouts."""
    return int(step.rollouts.contexts.lengths.sum()) + step.rollouts.tokens.numel()


def memory_in_use(device: torch.device) -> int:
    """Bytes: the peak of a GPU's allocator, the resident set of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return int(psutil.Process().memory_info().rss)
