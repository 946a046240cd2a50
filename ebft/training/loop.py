"""Fine-tuning, the whole algorithm: one pass of `train`'s loop is one step.

EBFT, RLVR and SFT differ in their parts alone: a reward of features, a reward of a verifier, and
none at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from ebft.errors import NumericalError
from ebft.interfaces import Baseline, FeatureMap, Plan, Reward, Sampler, Transform
from ebft.objective import ObjectiveOptions, advantages_to_go
from ebft.processes import Processes
from ebft.rollout.micro_batches import divide
from ebft.rollout.records import Contexts, Document, Scored, Terms
from ebft.training.clip import clip_gradients
from ebft.training.contract import Contract
from ebft.training.update import Losses, accumulate_gradients

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class RolloutParts:
    """What samples rollouts and what scores them; no feature map if the reward uses none."""

    sampler: Sampler
    feature_map: FeatureMap | None
    transforms: Sequence[Transform]
    reward: Reward
    baseline: Baseline


@dataclass(frozen=True, slots=True)
class Machinery:
    """Everything the loop calls, as plain objects.

    `documents(step)` is a pure function: this process's share of the step's documents. Without
    `rollout_parts` there are no rollouts, and the loss is γ·cross-entropy alone: SFT.
    `micro_batch_tokens` go through a network together at most: memory, not results.
    """

    policy: PreTrainedModel
    documents: Callable[[int], Sequence[Document]]
    plan: Plan
    rollout_parts: RolloutParts | None
    objective: ObjectiveOptions
    optimizer: Optimizer
    lr_scheduler: LRScheduler
    micro_batch_tokens: int
    gradient_checkpointing: bool
    clip_grad_norm: float
    precision: torch.dtype
    device: torch.device
    processes: Processes

    @property
    def n(self) -> int:
        """Rollouts of a context."""
        return 0 if self.rollout_parts is None else self.rollout_parts.sampler.n


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did, for whoever watches; `scored` is None if there were no rollouts.

    `sync` has the figures of the sampler's sync with the policy's new weights.
    """

    number: int
    contexts: Contexts
    scored: Scored | None
    losses: Losses
    grad_norm: float
    learning_rate: float
    sync: Mapping[str, float]

    @property
    def done(self) -> int:
        """Steps done with this one: its number as people count."""
        return self.number + 1


def train(m: Machinery, steps: range) -> Iterator[Step]:
    """Runs the optimizer steps, yielding each when it is done.

    Raises `NumericalError`, and what the parts raise.
    """
    for step in steps:
        contexts = m.plan(m.documents(step)).to(m.device)  # P of them
        contexts = divide(contexts, n=m.n, budget=m.micro_batch_tokens, processes=m.processes)
        scored = None
        if m.rollout_parts is not None:
            scored = sample_and_score(m.rollout_parts, contexts, m.processes, step=step)

        # ∇L of L = L_FM + γ·L_CE, a micro-batch at a time. The gradient of L_FM is that of
        # −1/P Σ_c 1/n Σ_j A_j log p(ŷ_j | c)   (paper, equation 8).
        losses = accumulate_gradients(
            m.policy, contexts, scored, m.objective,
            precision=m.precision, gradient_checkpointing=m.gradient_checkpointing,
            step=step, processes=m.processes,
        )  # fmt: skip
        grad_norm = clip_gradients(m.policy.parameters(), m.clip_grad_norm)
        if not torch.isfinite(grad_norm):
            names = ", ".join(document.name for document in contexts.documents)
            raise NumericalError(f"step {step + 1}: the gradient norm is {grad_norm}, in {names}")

        learning_rate = m.optimizer.param_groups[0]["lr"]
        m.optimizer.step()
        m.lr_scheduler.step()
        m.optimizer.zero_grad(set_to_none=True)
        sync = {} if m.rollout_parts is None else m.rollout_parts.sampler.sync(m.policy, step=step)
        yield Step(step, contexts, scored, losses, float(grad_norm), learning_rate, sync)


def sample_and_score(
    parts: RolloutParts, contexts: Contexts, processes: Processes, *, step: int
) -> Scored:
    """Contexts → rollouts [P, n, G] → features [P, n, D] → terms [P, n], [P, n, n] → advantages.

    Raises `PluginError` for a part that gives another shape than its kind promises.
    """
    checked = Contract(contexts, n=parts.sampler.n, step=step)
    rollouts = checked.rollouts(parts.sampler(contexts, step=step))

    features = None
    if parts.feature_map is not None:
        features = checked.features(parts.feature_map(rollouts), key="feature_map")
        # If rewards are per token, each token is a row of its own until they have advantages.
        checked = replace(checked, rows_per_context=features.rows_per_context)
        features = features.by_token()
        for i, transform in enumerate(parts.transforms):
            features = checked.features(transform(features), key=f"transforms.{i}")

    terms = checked.terms(parts.reward(rollouts, features))
    # A baseline may compare contexts: it is given those of the whole step.
    everyones = Terms(processes.gather(terms.unary), processes.gather(terms.pairwise))
    everyones_advantages = checked.like(everyones.unary, parts.baseline(everyones))
    advantages = checked.advantages(processes.own(everyones_advantages, like=terms.unary))
    if checked.rows_per_context > 1:
        advantages = advantages_to_go(advantages, checked.rows_per_context)
    return Scored(rollouts, features, terms, advantages)
