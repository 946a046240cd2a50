"""The loop's inputs, as plain objects, and what it reports of each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ebft.distributed.processes import Processes
from ebft.parts.interfaces import Baseline, FeatureMap, Plan, Reward, Sampler, Transform
from ebft.rollout.micro_batches import MicroBatch, divide
from ebft.rollout.records import Contexts, Document, Scored
from ebft.training.losses import Losses
from ebft.training.objective import ObjectiveOptions

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class RolloutParts:
    """The parts that sample and score rollouts; `feature_map` is None if the reward uses none."""

    sampler: Sampler
    feature_map: FeatureMap | None
    transforms: Sequence[Transform]
    reward: Reward
    baseline: Baseline


@dataclass(frozen=True, slots=True)
class LoopParts:
    """All inputs of the loop.

    `documents(step)` is a pure function that returns this process's share of the step's documents.
    Without `rollout_parts` there are no rollouts, and the loss is γ·cross-entropy: SFT.
    `longest_tree` is the number of tokens of the longest document with its rollouts.
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
    keep_logits: bool
    clip_grad_norm: float
    precision: torch.dtype
    device: torch.device
    processes: Processes

    def contexts(self, step: int) -> Contexts:
        """The contexts of a step's documents, in micro-batches. All processes must call it."""
        contexts = self.plan(self.documents(step))
        budget = self.micro_batch_tokens
        divided = divide(contexts, n=self.n, budget=budget, processes=self.processes)
        return divided.to(self.device)

    @property
    def micro_batch_tokens(self) -> int:
        """The most tokens that go through a network together."""
        return self.micro_batch.documents * self.longest_tree

    @property
    def n(self) -> int:
        """Rollouts of each context."""
        return 0 if self.rollout_parts is None else self.rollout_parts.sampler.n


class Observer:
    """Callbacks during a step; these do nothing."""

    def announce(self, what: str) -> None:
        """Called before each phase of a step: "sampling", "training 3/16"."""

    def before_update(self, step: int, contexts: Contexts, scored: Scored | None) -> None:
        """Called when the step's gradients are complete, before the weights change."""


NOBODY = Observer()


@dataclass(frozen=True, slots=True)
class Step:
    """The results of one step; `scored` is None if there were no rollouts.

    `sync` has the figures that the sampler returned from its sync with the new weights.
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
        """The number of steps done, including this one."""
        return self.number + 1
