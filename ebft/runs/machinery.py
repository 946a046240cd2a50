"""From a validated recipe to everything that the training loop calls."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

from torch.optim.lr_scheduler import ConstantLR

from ebft.data.order import DocumentOrder, told_apart
from ebft.errors import UserError
from ebft.interfaces import Plan
from ebft.models.compiled import compile_layers
from ebft.parts import Resources
from ebft.rollout.micro_batches import MicroBatch, tree_tokens
from ebft.rollout.records import Document
from ebft.runs.finetune_options import FineTuneOptions
from ebft.runs.trial import INSTEAD
from ebft.training.machinery import Machinery, RolloutParts

if TYPE_CHECKING:
    from torch.nn import Parameter
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

SEEN = 256
"""Documents that are looked at to know how long they are."""


def make_machinery(
    options: FineTuneOptions,
    resources: Resources,
    plan: Plan,
    documents: Sequence[Document],
    micro_batch: MicroBatch,
) -> Machinery:
    """Builds every part of the training loop."""
    training = options.training
    order = DocumentOrder(options.seed, len(documents))
    processes = resources.processes
    if training.compile:
        compile_layers(resources.policy)
    parameters = [p for p in resources.policy.parameters() if p.requires_grad]
    optimizer = make_optimizer(options, parameters)
    lr_scheduler = make_lr_scheduler(options, optimizer)
    parts = make_rollout_parts(options, resources)
    # Of the first ones: with documents.on_demand, to see all would be to tokenise all.
    longest = max(islice(documents, SEEN), key=lambda document: document.tokens.numel())
    (longest_tree,) = tree_tokens(plan([longest]), 0 if parts is None else parts.sampler.n)

    def of_step(step: int) -> list[Document]:
        chosen = told_apart([documents[i] for i in order(step, training.documents_per_step)])
        return [chosen[i] for i in processes.share([one.tokens.numel() for one in chosen])]

    return Machinery(
        policy=resources.policy,
        documents=of_step,
        plan=plan,
        rollout_parts=parts,
        objective=options.objective,
        optimizer=optimizer,
        lr_scheduler=lr_scheduler,
        micro_batch=micro_batch,
        longest_tree=longest_tree,
        gradient_checkpointing=training.gradient_checkpointing,
        clip_grad_norm=training.clip_grad_norm,
        precision=resources.precision,
        device=resources.device,
        processes=processes,
    )


def make_optimizer(options: FineTuneOptions, parameters: list[Parameter]) -> Optimizer:
    """The recipe's optimizer of these weights. Raises `UserError` if it does not take them."""
    try:
        optimizer: Optimizer = options.optimizer.instantiate(parameters)
    except UserError as error:
        raise UserError(f"optimizer: {error}; {INSTEAD}") from error
    return optimizer


def make_lr_scheduler(options: FineTuneOptions, optimizer: Optimizer) -> LRScheduler:
    """The recipe's schedule; without one the learning rate stays as it is."""
    if options.lr_scheduler is None:
        return ConstantLR(optimizer, factor=1.0)
    return options.lr_scheduler.instantiate(optimizer)


def make_rollout_parts(options: FineTuneOptions, resources: Resources) -> RolloutParts | None:
    """Builds what samples and scores rollouts; None if the recipe has no reward.

    A feature map is built if the reward uses features.
    """
    sampler, reward, baseline = options.sampler, options.reward, options.baseline
    if sampler is None or reward is None or baseline is None:
        return None  # all three: `checks.rollouts_are_scored` refuses some of them
    feature_map = options.feature_map if options.uses_features else None
    return RolloutParts(
        sampler=sampler.build(resources),
        feature_map=None if feature_map is None else feature_map.build(resources),
        transforms=[transform.build(resources) for transform in options.transforms],
        reward=reward.build(resources),
        baseline=baseline.build(resources),
    )
