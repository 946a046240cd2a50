"""Energy-Based Fine-Tuning, the whole algorithm: one pass of `train`'s loop is one step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ebft.errors import NumericalError
from ebft.interfaces import Baseline, FeatureMap, Plan, Reward, Sampler, Transform
from ebft.objective import ObjectiveOptions
from ebft.rollout.records import Document, Features, Rollouts, Terms
from ebft.training.finite import check_features, check_finite
from ebft.training.update import Losses, accumulate_gradients

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Machinery:
    """Everything the loop calls, as plain objects. `documents(step)` is a pure function."""

    policy: PreTrainedModel
    documents: Callable[[int], Sequence[Document]]
    plan: Plan
    sampler: Sampler
    feature_map: FeatureMap
    transforms: Sequence[Transform]
    reward: Reward
    baseline: Baseline
    objective: ObjectiveOptions
    optimizer: Optimizer
    lr_scheduler: LRScheduler
    micro_batch: int
    gradient_checkpointing: bool
    clip_grad_norm: float
    precision: torch.dtype
    device: torch.device


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did, for whoever watches. `features` are those the reward saw.

    `sync` has the figures of the sampler's sync with the policy's new weights.
    """

    number: int
    rollouts: Rollouts
    features: Features
    terms: Terms
    advantages: Float[Tensor, "P n"]
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
        rollouts = m.sampler(contexts, step=step)

        features = m.feature_map(rollouts)
        check_features(features, contexts, step=step)
        for transform in m.transforms:
            features = transform(features)
            check_features(features, contexts, step=step)

        terms = m.reward(rollouts, features)
        check_finite("rewards", terms.reward(), contexts, step=step)
        advantages = m.baseline(terms)
        check_finite("advantages", advantages, contexts, step=step)

        losses = accumulate_gradients(
            m.policy, rollouts, advantages, m.objective,
            micro_batch=m.micro_batch, precision=m.precision,
            gradient_checkpointing=m.gradient_checkpointing, step=step,
        )  # fmt: skip
        grad_norm = torch.nn.utils.clip_grad_norm_(m.policy.parameters(), m.clip_grad_norm)
        if not torch.isfinite(grad_norm):
            names = ", ".join(document.name for document in contexts.documents)
            raise NumericalError(f"step {step}: the gradient norm is {grad_norm}, in {names}")

        learning_rate = m.optimizer.param_groups[0]["lr"]
        m.optimizer.step()
        m.lr_scheduler.step()
        m.optimizer.zero_grad(set_to_none=True)
        sync = m.sampler.sync(m.policy, step=step)
        yield Step(
            step, rollouts, features, terms, advantages, losses, float(grad_norm), learning_rate,
            sync,
        )  # fmt: skip
