"""From a validated recipe to the objects of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch.optim.lr_scheduler import ConstantLR

from ebft.data.documents import Tokenized, tokenize
from ebft.data.order import DocumentOrder
from ebft.interfaces import DataSource, Evaluator, Plan
from ebft.models.load import load_frozen, load_policy, resolve_device
from ebft.parts import Resources
from ebft.rollout.records import Document
from ebft.training.loop import Machinery, Scorer
from ebft.training.options import FineTuneOptions

PRECISION = {"float32": torch.float32, "bfloat16": torch.bfloat16}
HELD_OUT_SEED = 0
"""Held-out documents are chosen alike in all runs, whatever their seed."""


@dataclass(frozen=True, slots=True)
class Documents:
    """The documents of a run; `held_out` are those that every evaluation measures."""

    train: Tokenized
    held_out: Tokenized
    evaluated: Sequence[Document]


def make_resources(options: FineTuneOptions) -> Resources:
    """Loads the policy. The frozen base model is loaded when a part first asks for it, once."""
    policy, tokenizer = load_policy(options.model)
    precision = PRECISION[options.model.precision]
    return Resources(
        policy=policy,
        tokenizer=tokenizer,
        load_base=cache(partial(load_frozen, options.model, precision)),
        device=resolve_device(options.model.device),
        precision=precision,
        seed=options.seed,
        micro_batch=options.training.micro_batch,
    )


def make_documents(options: FineTuneOptions, resources: Resources) -> Documents:
    """Reads, splits and tokenises the data. Raises `UserError` if the plan accepts no document."""
    source: DataSource = options.data.build(resources)
    plan: Plan = options.plan.build(resources)
    splits = source()
    train, held_out = (
        tokenize(examples, resources.tokenizer, options.documents, plan, split=name)
        for name, examples in (("train", splits.train), ("held-out", splits.held_out))
    )
    count = min(options.evaluation.documents, len(held_out.documents))
    chosen = DocumentOrder(HELD_OUT_SEED, len(held_out.documents))(0, count)
    return Documents(train, held_out, [held_out.documents[i] for i in chosen])


def make_machinery(
    options: FineTuneOptions, resources: Resources, documents: Sequence[Document]
) -> Machinery:
    """Builds every part of the training loop."""
    training = options.training
    order = DocumentOrder(options.seed, len(documents))
    parameters = [p for p in resources.policy.parameters() if p.requires_grad]
    optimizer = options.optimizer.instantiate(parameters)
    return Machinery(
        policy=resources.policy,
        documents=lambda step: [documents[i] for i in order(step, training.documents_per_step)],
        plan=options.plan.build(resources),
        scorer=make_scorer(options, resources),
        objective=options.objective,
        optimizer=optimizer,
        lr_scheduler=(
            ConstantLR(optimizer, factor=1.0)
            if options.lr_scheduler is None
            else options.lr_scheduler.instantiate(optimizer)
        ),
        micro_batch=resources.micro_batch,
        gradient_checkpointing=training.gradient_checkpointing,
        clip_grad_norm=training.clip_grad_norm,
        precision=resources.precision,
        device=resources.device,
    )


def make_scorer(options: FineTuneOptions, resources: Resources) -> Scorer | None:
    """Builds what samples and scores rollouts; None if the recipe has no reward.

    A feature map is built if the reward uses features.
    """
    sampler, reward, baseline = options.sampler, options.reward, options.baseline
    if sampler is None or reward is None or baseline is None:
        return None  # all three: `checks.rollouts_are_scored` refuses some of them
    feature_map = options.feature_map if options.uses_features else None
    return Scorer(
        sampler=sampler.build(resources),
        feature_map=None if feature_map is None else feature_map.build(resources),
        transforms=[transform.build(resources) for transform in options.transforms],
        reward=reward.build(resources),
        baseline=baseline.build(resources),
    )


def make_evaluators(options: FineTuneOptions, resources: Resources) -> list[Evaluator]:
    """Builds the evaluators of the recipe."""
    return [evaluator.build(resources) for evaluator in options.evaluation.evaluators]
