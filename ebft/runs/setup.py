"""From a validated recipe to the objects of a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch.optim.lr_scheduler import ConstantLR, ReduceLROnPlateau

from ebft.data.documents import DocumentOptions, Tokenized, tokenize
from ebft.data.on_demand import OnDemand
from ebft.data.order import DocumentOrder, told_apart
from ebft.errors import UserError
from ebft.evaluation.history import EvaluationSet
from ebft.evaluation.labelled import build_evaluator
from ebft.evaluation.options import HELD_OUT, SetOptions
from ebft.evaluation.plans import check_plans
from ebft.interfaces import DataSource, Example, Plan, Splits
from ebft.models.compiled import compile_layers
from ebft.models.context_length import context_length
from ebft.models.load import load_frozen, load_policy, resolve_device
from ebft.models.lora import add_adapter, without_adapter
from ebft.parts import Resources
from ebft.processes import ONE_PROCESS, Processes
from ebft.rollout.completion import Completion
from ebft.rollout.micro_batches import MicroBatch, tree_tokens
from ebft.rollout.records import Document
from ebft.runs.finetune_options import FineTuneOptions
from ebft.runs.free_memory import free_memory
from ebft.runs.model_recipe_options import ModelRecipeOptions
from ebft.training.machinery import Machinery, RolloutParts

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler
    from transformers import PreTrainedModel

log = logging.getLogger("ebft")

PRECISION = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SEEN = 256
"""Documents that are looked at to know how long they are."""
HELD_OUT_SEED = 0
"""Held-out documents are chosen alike in all runs, whatever their seed."""


@dataclass(frozen=True, slots=True)
class Documents:
    """The documents of a run: those to train on, and those held out by the name of their set."""

    train: Tokenized
    evaluated: Mapping[str, Tokenized]


def make_resources(options: ModelRecipeOptions, processes: Processes = ONE_PROCESS) -> Resources:
    """Loads the policy, and gives it an adapter if the recipe has LoRA.

    The frozen base model is then the policy without its adapter; otherwise, or if the recipe names
    another base, it is loaded when a part first asks for it, once.
    """
    policy, tokenizer = load_policy(options.model)
    precision = PRECISION[options.model.precision]
    load_base: Callable[[], PreTrainedModel] = partial(load_frozen, options.model, precision)
    if options.model.lora is not None:
        add_adapter(policy, options.model.lora, seed=options.seed)
        if options.model.base is None:
            load_base = partial(without_adapter, policy)
    return Resources(
        policy=policy,
        tokenizer=tokenizer,
        load_base=cache(load_base),
        device=resolve_device(options.model.device),
        precision=precision,
        seed=options.seed,
        processes=processes,
    )


def memory_at_hand(options: ModelRecipeOptions, processes: Processes) -> int:
    """Bytes that this process can get before any model is loaded."""
    device = resolve_device(options.model.device)
    return free_memory(device, local_size=processes.local_size)


def make_documents(options: ModelRecipeOptions, resources: Resources, plan: Plan) -> Documents:
    """Reads, splits and tokenises the data. Raises `UserError` if the plan accepts no document."""
    splits = read_splits(options, resources)
    train = _tokenize(options, resources, plan, "train", splits.train)
    return Documents(train, held_out_documents(options, resources, plan, splits))


def check_context_length(length: int, resources: Resources, *, key: str) -> None:
    """Raises `UserError` naming `key` for a length that the policy cannot read."""
    most = context_length(resources.policy.config)
    if most is not None and length > most:
        raise UserError(
            f"{key} = {length}: the model reads {most} tokens at most; set {key}={most} or less"
        )


def read_splits(options: ModelRecipeOptions, resources: Resources) -> Splits:
    """The texts of the recipe's data source. Raises `UserError` if the policy cannot read any as
    long as the recipe allows them to be."""
    check_context_length(options.documents.length, resources, key="documents.length")
    source: DataSource = options.data.build(resources)
    return source()


def held_out_documents(
    options: ModelRecipeOptions, resources: Resources, plan: Plan, splits: Splits
) -> dict[str, Tokenized]:
    """What is not trained on, by the name of its set, out-of-distribution if there is any."""
    held_out, out_of_distribution = HELD_OUT
    sets = {held_out: splits.held_out}
    if splits.out_of_distribution:
        sets[out_of_distribution] = splits.out_of_distribution
    return {name: _tokenize(options, resources, plan, name, texts) for name, texts in sets.items()}


def make_evaluation_sets(
    options: ModelRecipeOptions, resources: Resources, held_out: Mapping[str, Tokenized]
) -> list[EvaluationSet]:
    """Builds the evaluators, and chooses the documents of each set that they measure."""
    evaluation = options.evaluation
    evaluators = [build_evaluator(part, resources) for part in evaluation.evaluators]
    own = [
        EvaluationSet(name, choose(split.documents, evaluation.documents), evaluators)
        for name, split in held_out.items()
        if evaluators
    ]
    reads = context_length(resources.policy.config)
    for it in own:
        check_plans(evaluation.evaluators, it.documents, key="evaluation", reads=reads)
    others = []
    for number, one in enumerate(evaluation.sets):
        key = f"evaluation.sets.{number}"
        check_context_length(one.length, resources, key=f"{key}.length")
        others.append(make_benchmark(one, resources))
        check_plans(one.evaluators, others[-1].documents, key=key, reads=reads)
    return own + others


def make_benchmark(options: SetOptions, resources: Resources) -> EvaluationSet:
    """The documents of a set of `evaluation.sets`, and its evaluators."""
    source: DataSource = options.data.build(resources)
    texts = source().held_out
    length = DocumentOptions(length=options.length)
    split = tokenize(
        texts, resources.tokenizer, length, Completion(rollout_length=1), split=options.name
    )
    for why, count in split.dropped.items():
        log.warning("%s: dropped %d of %d: %s", options.name, count, len(texts), why)
    documents = choose(split.documents, options.documents or len(split.documents))
    evaluators = [build_evaluator(part, resources) for part in options.evaluators]
    return EvaluationSet(options.name, documents, evaluators)


def choose(documents: Sequence[Document], count: int) -> list[Document]:
    """So many of the documents, or all there are; the same ones in every run."""
    order = DocumentOrder(HELD_OUT_SEED, len(documents))
    if not isinstance(documents, OnDemand):
        return [documents[i] for i in order(0, min(count, len(documents)))]
    # Where documents are not accepted, others stand at their places as well: each counts once.
    found: dict[str, Document] = {}
    for i in order(0, len(documents)):
        document = documents[i]
        found.setdefault(document.name, document)
        if len(found) == count:
            break
    return list(found.values())


def _tokenize(
    options: ModelRecipeOptions,
    resources: Resources,
    plan: Plan,
    split: str,
    examples: Sequence[Example],
) -> Tokenized:
    reads = context_length(resources.policy.config)
    return tokenize(
        examples, resources.tokenizer, options.documents, plan, split=split, reads=reads
    )


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
    optimizer = options.optimizer.instantiate(parameters)
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


def make_lr_scheduler(options: FineTuneOptions, optimizer: Optimizer) -> LRScheduler:
    """The recipe's schedule; without one the learning rate stays as it is.

    Raises `UserError` for one that waits for a figure that the loop does not give it.
    """
    if options.lr_scheduler is None:
        return ConstantLR(optimizer, factor=1.0)
    scheduler: LRScheduler = options.lr_scheduler.instantiate(optimizer)
    if isinstance(scheduler, ReduceLROnPlateau) or not hasattr(scheduler, "last_epoch"):
        raise UserError(
            f"lr_scheduler._component_ = {options.lr_scheduler.path}: follows a measurement, or "
            "does not count its steps, and the loop steps a schedule by number alone; take "
            "another, such as torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup"
        )
    return scheduler


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
