"""Fine-tuning, the whole algorithm: one pass of `train`'s loop is one step.

EBFT, RLVR and SFT differ in their parts alone: a reward of features, a reward of a verifier, and
none at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ebft.errors import NumericalError
from ebft.interfaces import Baseline, FeatureMap, Plan, Reward, Sampler, Transform
from ebft.objective import ObjectiveOptions, advantages_to_go
from ebft.processes import Processes
from ebft.rollout.micro_batches import divide
from ebft.rollout.records import Contexts, Document, Scored
from ebft.training.clip import clip_gradients
from ebft.training.contract import (
    check_advantages,
    check_features,
    check_rollouts,
    check_terms,
)
from ebft.training.finite import check_finite, check_finite_features
from ebft.training.update import Losses, accumulate_gradients

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Scorer:
    """The parts that sample rollouts and score them; no feature map if the reward uses none."""

    sampler: Sampler
    feature_map: FeatureMap | None
    transforms: Sequence[Transform]
    reward: Reward
    baseline: Baseline


@dataclass(frozen=True, slots=True)
class Machinery:
    """Everything the loop calls, as plain objects.

    `documents(step)` is a pure function: this process's share of the step's documents. Without a
    `scorer` there are no rollouts, and the loss is γ·cross-entropy alone: SFT. `tokens_at_a_time`
    is what goes through a network together: memory, not results.
    """

    policy: PreTrainedModel
    documents: Callable[[int], Sequence[Document]]
    plan: Plan
    scorer: Scorer | None
    objective: ObjectiveOptions
    optimizer: Optimizer
    lr_scheduler: LRScheduler
    tokens_at_a_time: int
    gradient_checkpointing: bool
    clip_grad_norm: float
    precision: torch.dtype
    device: torch.device
    processes: Processes

    @property
    def n(self) -> int:
        """Rollouts of a context."""
        return 0 if self.scorer is None else self.scorer.sampler.n


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


def train(m: Machinery, steps: range) -> Iterator[Step]:
    """Runs the optimizer steps, yielding each when it is done.

    Raises `NumericalError`, and what the parts raise.
    """
    for step in steps:
        contexts = m.plan(m.documents(step)).to(m.device)
        contexts = divide(contexts, n=m.n, budget=m.tokens_at_a_time, processes=m.processes)
        scored = (
            None
            if m.scorer is None
            else sample_and_score(m.scorer, contexts, m.processes, step=step)
        )

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
        sync = {} if m.scorer is None else m.scorer.sampler.sync(m.policy, step=step)
        yield Step(step, contexts, scored, losses, float(grad_norm), learning_rate, sync)


def sample_and_score(s: Scorer, contexts: Contexts, processes: Processes, *, step: int) -> Scored:
    """Contexts → rollouts → features → terms → advantages.

    Raises `PluginError` for a part that gives another shape than its kind promises.
    """
    n, rows = s.sampler.n, len(contexts)
    rollouts = s.sampler(contexts, step=step)
    check_rollouts(rollouts, contexts, n=n)

    features, rows_per_context = None, 1
    if s.feature_map is not None:
        features = check_features(s.feature_map(rollouts), rows, n, key="feature_map")
        check_finite_features(features, contexts, step=step)
        # If rewards are per token, each token is a row of its own until they have advantages.
        rows_per_context, features = features.tokens, features.by_token()
        rows *= rows_per_context
        for i, transform in enumerate(s.transforms):
            features = check_features(transform(features), rows, n, key=f"transforms.{i}")
            check_finite_features(features, contexts, step=step)

    terms = s.reward(rollouts, features)
    check_terms(terms, rows, n)
    check_finite("rewards", terms.reward(), contexts, step=step)
    advantages = processes.pooled(s.baseline, terms)
    check_advantages(advantages, terms)
    check_finite("advantages", advantages, contexts, step=step)
    if rows_per_context > 1:
        advantages = advantages_to_go(advantages, rows_per_context)
    return Scored(rollouts, features, terms, advantages)
