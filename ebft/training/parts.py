"""What the loop is given, as plain objects, and what it reports of each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ebft.distributed.processes import Processes
from ebft.parts.interfaces import Baseline, FeatureMap, Plan, Reward, Sampler, Transform
from ebft.rollout.micro_batches import MicroBatch
from ebft.rollout.records import Contexts, Document, Scored
from ebft.training.losses import Losses
from ebft.training.objective import ObjectiveOptions

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
class LoopParts:
    """Everything the loop calls.

    `documents(step)` is a pure function: this process's share of the step's documents. Without
    `rollout_parts` there are no rollouts, and the loss is γ·cross-entropy alone: SFT.
    `longest_tree` is the tokens of the longest document with its rollouts.
    """

    policy: PreTrainedModel
    documents: Callable[[int], Sequence[Document]]
    plan: Plan
    rollout_parts: RolloutParts | None
    objective: ObjectiveOptions
    optimizer: Optimizer
    lr_scheduler: LRScheduler
    micro_batch: MicroBatch
    longest_tree: int
    gradient_checkpointing: bool
    clip_grad_norm: float
    precision: torch.dtype
    device: torch.device
    processes: Processes

    @property
    def micro_batch_tokens(self) -> int:
        """Tokens that go through a network together at most."""
        return self.micro_batch.documents * self.longest_tree

    @property
    def n(self) -> int:
        """Rollouts of a context."""
        return 0 if self.rollout_parts is None else self.rollout_parts.sampler.n


class Observer:
    """Whoever is told of a step in progress; this one does nothing about it."""

    def announce(self, what: str) -> None:
        """What comes next: "sampling", "training 3/16"."""

    def before_update(self, step: int, contexts: Contexts, scored: Scored | None) -> None:
        """The step's gradients are complete, and the weights are still those sampled from."""


NOBODY = Observer()


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
