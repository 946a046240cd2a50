"""The metrics of one step that are shown and logged."""

from __future__ import annotations

import psutil
import torch

from ebft.distributed.processes import Processes
from ebft.rollout.merge import distinct
from ebft.rollout.records import Scored
from ebft.scoring.kernel_scores import unbiased_cfm
from ebft.training.parts import Step


def step_metrics(step: Step, *, seconds: float, processes: Processes) -> dict[str, float]:
    """Returns all metrics of a step, by name, over all processes; those of rollouts if any."""
    tokens = processes.sum(torch.tensor(trained_tokens(step)))
    memory = processes.gather(torch.tensor([memory_in_use(step.contexts.tokens.device)])).max()
    metrics = {
        "ce": step.losses.cross_entropy,
        "grad_norm": step.grad_norm,
        "learning_rate": step.learning_rate,
        "tokens_per_second": int(tokens) / seconds,
        "seconds": seconds,
        "memory_gib": int(memory) / 2**30,
        **step.sync,
    }
    if step.scored is not None:
        metrics = {**scored_metrics(step.scored, processes), **metrics}
    if step.losses.policy_gradient is not None:
        loss, gap, ratios = step.losses.policy_gradient
        metrics |= {"policy_gradient_loss": loss, "sampler_gap": gap}
        if ratios is not None:
            named = ratios._asdict()
            metrics |= {f"importance_{name}": value for name, value in named.items()}
    return metrics


def scored_metrics(scored: Scored, processes: Processes) -> dict[str, float]:
    """Returns the metrics of rollouts and their rewards.

    `cfm` is the unbiased feature-matching loss of this step's documents, in the features that the
    reward uses; absent for n = 1, where it is undefined. `alignment` is the mean of the unary
    terms, and `diversity` is what the pairwise terms subtract: reward = alignment − diversity.
    Rewards without features have none of these. `distinct_tokens` counts rollout tokens whose
    prefix no earlier rollout of the context has. `advantage_std` is the standard deviation of all
    advantages of the step; absent if there is only one.
    """
    rollouts = scored.rollouts
    n, once = rollouts.tokens.shape[1], distinct(rollouts.tokens, rollouts.within).kept
    reward = float(processes.gather(scored.reward()).mean())
    metrics = {
        "reward": reward,
        "rollout_tokens": float(processes.sum(rollouts.mask.sum())),
        "distinct_tokens": float(processes.sum(once.sum())),
    }
    if (advantages := processes.gather(scored.advantages)).numel() > 1:
        metrics["advantage_std"] = float(advantages.std())
    if scored.features is not None:
        unary = float(processes.gather(scored.terms.unary).mean()) * scored.rows_per_context
        metrics |= {"alignment": unary, "diversity": unary - reward}
        if n > 1:
            cfm = processes.gather(unbiased_cfm(scored.features))
            metrics["cfm"] = float(cfm.mean()) * scored.rows_per_context
    return metrics


def trained_tokens(step: Step) -> int:
    """Returns the number of tokens of this process's documents and of their rollouts."""
    documents = int(step.contexts.lengths.sum())
    return documents if step.scored is None else documents + int(step.scored.rollouts.mask.sum())


def memory_in_use(device: torch.device) -> int:
    """Returns bytes: the peak of the allocator on a GPU, this process's resident set on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return int(psutil.Process().memory_info().rss)
