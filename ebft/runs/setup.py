"""Sets a run up: loads the model and the documents, and builds the parts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch.optim.lr_scheduler import ConstantLR

from ebft.data.corpus import digest_documents
from ebft.data.documents import DocumentOptions, Tokenized, tokenize
from ebft.data.order import DocumentOrder, told_apart
from ebft.distributed.processes import ONE_PROCESS, Processes
from ebft.errors import UserError
from ebft.evaluation.measure import EvaluationSet
from ebft.evaluation.options import HELD_OUT
from ebft.evaluation.sets import make_evaluation_sets
from ebft.models.layers import compile_layers
from ebft.models.layout import Depth, load_exact
from ebft.models.load import load_frozen, load_policy
from ebft.models.lora import add_adapter, cast_base, has_adapter, without_adapter
from ebft.models.options import resolve_device
from ebft.models.probe import check_layout
from ebft.models.shape import check_context_length, context_length
from ebft.models.teacher import load_teacher
from ebft.models.tokenizer import embedded_tokens
from ebft.models.weights import digest_weights
from ebft.parts.interfaces import (
    Baseline,
    DataSource,
    FeatureMap,
    Plan,
    Reward,
    Sampler,
    Transform,
    check_call,
)
from ebft.parts.kinds import RewardPart
from ebft.parts.part import Part, Resources
from ebft.parts.splits import Example, Splits
from ebft.rollout.micro_batches import MicroBatch, tree_tokens
from ebft.rollout.records import Contexts, Document, Rollouts
from ebft.runs.estimate import describe_rows, memory_need
from ebft.runs.folder import Start
from ebft.runs.memory import MemoryBudget, free_memory, make_micro_batch, with_turns
from ebft.runs.options import FineTuneOptions, ModelRecipeOptions
from ebft.runs.trial import INSTEAD
from ebft.samplers.hf_tree import HfTree
from ebft.training.ahead import sampling_ahead
from ebft.training.gradients import trained_weights
from ebft.training.parts import LoopParts, RolloutParts

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.nn import Parameter
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ebft.config.class_kinds import OptimizerComponent, ScheduleComponent
    from ebft.models.options import ModelOptions

PRECISION = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SAMPLED = 256
"""The number of documents from which the longest length is estimated."""

log = logging.getLogger("ebft")


@dataclass(frozen=True, slots=True)
class Documents:
    """The documents to train on, and the held-out ones by the name of their set."""

    train: Tokenized
    evaluated: Mapping[str, Tokenized]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that a run needs before its first step.

    `digests` are of the base model's weights and of the documents.
    """

    budget: MemoryBudget
    resources: Resources
    documents: Documents
    sets: Sequence[EvaluationSet]
    digests: Mapping[str, str]
    loop: LoopParts


def prepare(options: FineTuneOptions, start: Start, processes: Processes) -> Prepared:
    """Loads the model and the data, and builds the parts.

    Raises `UserError` for a model or data that cannot be used, or that differ from those of the
    checkpoint that the run resumes from.
    """
    free = free_memory(resolve_device(options.model.device), local_size=processes.local_size)
    need = memory_need(options, processes=processes.size)
    budget = MemoryBudget(options.training, need, free, processes.size)
    micro_batch = make_micro_batch(budget, processes, before=start.micro_batch)
    resources = make_resources(
        options.model, processes,
        seed=options.seed,
        depth=depth_of(options),
        cost_on_rows=partial(
            describe_rows, options.plan, options.sampler, options.documents.length
        ),
    )  # fmt: skip
    base = digest_base(resources, another=options.model.base is not None)
    if start.resumed is not None:
        start.resumed.load_weights(resources.policy)
    plan = check_call("plan", options.plan.build(resources), Plan)
    documents = make_documents(options.data, options.documents, resources, plan)
    sets = make_evaluation_sets(options.evaluation, resources, documents.evaluated)
    digests = {
        "base": base,
        "train": documents.train.documents.digest(),
        "held_out": digest_documents([document for one in sets for document in one.documents]),
    }
    if start.resumed is not None:
        start.resumed.check_digests(digests)
    check_layout(
        resources.policy, documents.train.documents, plan, tried=options.model.tries_layouts
    )
    if (larger := with_turns(budget, options, documents.train.documents)) is not None:
        budget = larger
        micro_batch = make_micro_batch(budget, processes, before=start.micro_batch)
    cast_frozen(resources, has_lora=options.model.lora is not None)
    loop = make_loop_parts(
        options, resources, plan, documents.train.documents, micro_batch,
        keep_logits=budget.keeps_logits(micro_batch.documents),
    )  # fmt: skip
    return Prepared(budget, resources, documents, sets, digests, loop)


def digest_base(resources: Resources, *, another: bool) -> str:
    """A digest of the policy, before a checkpoint's weights are loaded, and of `another` base
    model."""
    digest = digest_weights(resources.policy)
    return f"{digest} {digest_weights(resources.load_base())}" if another else digest


def cast_frozen(resources: Resources, *, has_lora: bool) -> None:
    """In one process with LoRA, casts the frozen weights to the precision of forwards."""
    if has_lora and resources.processes.mesh is None:
        cast_base(resources.policy, resources.precision)


def make_resources(
    model: ModelOptions,
    processes: Processes = ONE_PROCESS,
    *,
    seed: int,
    depth: Depth,
    cost_on_rows: Callable[[], str] = str,
    merge_adapter: bool = True,
) -> Resources:
    """Loads the policy, chooses its layout, and adds an adapter if the recipe has LoRA. With
    several processes, its weights are sharded over them.

    `depth` is that of the documents and rollouts; `cost_on_rows` returns the sentence that is shown
    if `model.attention = auto` takes rows. Raises `UserError` for an architecture that is exact on
    neither layout.

    A checkpoint that holds only an adapter is loaded as `load_policy` says. If the policy has an
    adapter, the frozen base model is the policy without it, unless a recipe with LoRA names
    `model.base`. Otherwise the base model is loaded once, when a part first asks for it.
    """
    device, precision = resolve_device(model.device), PRECISION[model.precision]

    def load(attention: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        chosen = model.model_copy(update={"attention": attention})
        policy, tokenizer = load_policy(chosen, merge_adapter=merge_adapter, mesh=processes.mesh)
        if processes.mesh is not None:
            from ebft.models.shard import shard

            if model.lora is not None:  # before FSDP, which divides the adapter too
                add_adapter(policy, model.lora, seed=seed)
            shard(policy, processes.mesh, precision)
        return policy, tokenizer

    def sample(
        policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, contexts: Contexts
    ) -> Rollouts:
        alone = Resources(policy, tokenizer, lambda: policy, device, torch.float32, seed)
        return HfTree(n=2).build(alone)(contexts, step=0)

    log.info("loading %s …", model.name)
    loaded = load_exact(load, model.attention, depth=depth, sample=sample)
    policy, tokenizer = loaded.policy, loaded.tokenizer
    if loaded.why_rows is not None:
        log.warning(
            "model.attention = auto: %s is computed on rows, because %s%s",
            type(policy).__name__, loaded.why_rows, cost_on_rows(),
        )  # fmt: skip
    model = model.model_copy(update={"attention": loaded.attention})
    load_base: Callable[[], PreTrainedModel] = partial(
        load_base_model, model, precision, processes.mesh
    )

    @cache
    def load_other(path: str) -> PreTrainedModel:
        log.info("loading %s …", path)
        return load_teacher(path, model, tokenizer, depth=depth, sample=sample).to(precision)

    if model.lora is not None and processes.mesh is None:
        add_adapter(policy, model.lora, seed=seed)
    if has_adapter(policy) and (model.lora is None or model.base is None):
        load_base = partial(without_adapter, policy)
    return Resources(
        policy=policy,
        tokenizer=tokenizer,
        load_base=cache(load_base),
        load_other=load_other,
        device=device,
        precision=precision,
        seed=seed,
        processes=processes,
    )


def load_base_model(
    model: ModelOptions, precision: torch.dtype, mesh: DeviceMesh | None
) -> PreTrainedModel:
    """Loads the frozen base model; with a `mesh` it is sharded like the policy."""
    log.info("loading the frozen base model …")
    base = load_frozen(model, precision, mesh=mesh)
    if mesh is not None:
        from ebft.models.shard import shard

        shard(base, mesh, precision)
    return base


def depth_of(options: ModelRecipeOptions) -> Depth:
    """The most tokens of the recipe's documents and rollouts."""
    plan = options.plan
    length = options.documents.length
    return Depth(length, plan.rollout_length if isinstance(plan, Plan) else length)


def make_documents(
    data: Part, options: DocumentOptions, resources: Resources, plan: Plan
) -> Documents:
    """Reads and tokenizes the splits. Raises `UserError` if the plan accepts no document."""
    splits = read_splits(data, options, resources)
    return Documents(
        tokenize_split(splits.train, "train", options, resources, plan),
        held_out_documents(splits, options, resources, plan),
    )


def read_splits(data: Part, options: DocumentOptions, resources: Resources) -> Splits:
    """Reads the texts of a data source.

    Raises `UserError` if `documents.length` exceeds the context length of the policy.
    """
    check_context_length(options.length, resources.policy.config, key="documents.length")
    source: DataSource = data.build(resources)
    log.info("reading the data …")
    return source()


def held_out_documents(
    splits: Splits, options: DocumentOptions, resources: Resources, plan: Plan
) -> dict[str, Tokenized]:
    """The held-out documents, and out-of-distribution ones if there are any, by set."""
    held_out, out_of_distribution = HELD_OUT
    sets = {held_out: splits.held_out}
    if splits.out_of_distribution:
        sets[out_of_distribution] = splits.out_of_distribution
    return {
        name: tokenize_split(texts, name, options, resources, plan) for name, texts in sets.items()
    }


def tokenize_split(
    examples: Sequence[Example],
    split: str,
    options: DocumentOptions,
    resources: Resources,
    plan: Plan,
) -> Tokenized:
    """Tokenizes the documents of a split. Raises `UserError` if the plan accepts none."""
    reads = context_length(resources.policy.config)
    return tokenize(
        examples, resources.tokenizer, options, plan,
        split=split, reads=reads, embeds=embedded_tokens(resources.policy),
    )  # fmt: skip


def make_loop_parts(
    options: FineTuneOptions,
    resources: Resources,
    plan: Plan,
    documents: Sequence[Document],
    micro_batch: MicroBatch,
    *,
    keep_logits: bool,
) -> LoopParts:
    """Builds every part of the training loop."""
    training = options.training
    order = DocumentOrder(options.seed, len(documents))
    processes = resources.processes
    if training.compile:
        compile_layers(resources.policy)
    optimizer = make_optimizer(options.optimizer, trained_weights(resources.policy))
    lr_scheduler = make_lr_scheduler(options.lr_scheduler, optimizer)
    parts = make_rollout_parts(
        resources, options.sampler, options.feature_map, options.transforms, options.reward,
        options.baseline,
    )  # fmt: skip
    # Only the first ones: with documents.on_demand, looking at all would tokenize all.
    sampled = plan(list(islice(documents, SAMPLED)))
    longest_tree = max(tree_tokens(sampled, 0 if parts is None else parts.sampler.n))

    def of_step(step: int) -> list[Document]:
        chosen = told_apart([documents[i] for i in order(step, training.documents_per_step)])
        return [chosen[i] for i in processes.share([one.tokens.numel() for one in chosen])]

    loop = LoopParts(
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
        keep_logits=keep_logits,
        clip_grad_norm=training.clip_grad_norm,
        precision=resources.precision,
        device=resources.device,
        processes=processes,
    )
    if training.sample_ahead is None:
        return loop
    assert options.sampler is not None, "checked"
    return sampling_ahead(loop, options.sampler)


def make_optimizer(component: OptimizerComponent, parameters: list[Parameter]) -> Optimizer:
    """Makes the recipe's optimizer. Raises `UserError` if it does not support the parameters."""
    try:
        optimizer: Optimizer = component.instantiate(parameters)
    except UserError as error:
        raise UserError(f"optimizer: {error}; {INSTEAD}") from error
    return optimizer


def make_lr_scheduler(schedule: ScheduleComponent | None, optimizer: Optimizer) -> LRScheduler:
    """Makes the recipe's schedule; without one the learning rate is constant."""
    if schedule is None:
        return ConstantLR(optimizer, factor=1.0)
    return schedule.instantiate(optimizer)


def make_rollout_parts(
    resources: Resources,
    sampler: Part | None,
    feature_map: Part | None,
    transforms: Sequence[Part],
    reward: RewardPart | None,
    baseline: Part | None,
) -> RolloutParts | None:
    """Builds the parts that sample and score rollouts; None if the recipe has no reward.

    The feature map is not built for a reward that uses no features. Raises `PluginError` for a part
    that takes other arguments than the loop gives it.
    """
    if sampler is None or reward is None or baseline is None:
        return None  # `checks` makes sure that all three are missing
    computed = feature_map if reward.uses_features() else None
    return RolloutParts(
        sampler=check_call("sampler", sampler.build(resources), Sampler),
        feature_map=(
            None
            if computed is None
            else check_call("feature_map", computed.build(resources), FeatureMap)
        ),
        transforms=[
            check_call(f"transforms.{i}", transform.build(resources), Transform)
            for i, transform in enumerate(transforms)
        ],
        reward=check_call("reward", reward.build(resources), Reward),
        baseline=check_call("baseline", baseline.build(resources), Baseline),
    )
