"""What no section can know by itself: mistakes in how the parts of a recipe go together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ebft.errors import UserError
from ebft.models.load import adapter_folder
from ebft.parts.interfaces import Plan
from ebft.parts.kinds import BaselinePart, RewardPart, SamplerPart
from ebft.runs.trial import try_optimizer, try_schedule

if TYPE_CHECKING:
    from ebft.config.component import Component
    from ebft.models.options import ModelOptions
    from ebft.parts.part import Part
    from ebft.runs.options import CheckpointOptions, FineTuneOptions, StepOptions
    from ebft.training.objective import ObjectiveOptions


def find_problems(options: FineTuneOptions) -> list[str]:
    """One line for every problem: its key, the value, what to do about it."""
    plan, sampler, training = options.plan, options.sampler, options.training
    reward, baseline = options.reward, options.baseline
    return [
        *rollouts_are_scored(sampler, reward, baseline, options.objective),
        *features_are_used(reward, options.feature_map, options.transforms, sampler),
        *pairs_need_two(sampler, reward, baseline),
        *micro_batch_fits(training),
        *documents_hold_an_anchor(plan, options.documents.length),
        *adapters_are_kept(options.model, options.checkpoint),
        *compiles(training, options.model),
        *try_optimizer(options.optimizer, options.model.device),
        *try_schedule(options.lr_scheduler, options.optimizer, training.steps),
        *loggers_take_their_arguments(options.metric_loggers),
        *(biased(options.parts(), options.objective) if options.require_unbiased else ()),
    ]


def rollouts_are_scored(
    sampler: Part | None, reward: Part | None, baseline: Part | None, objective: ObjectiveOptions
) -> Iterator[str]:
    """Sampler, reward and baseline belong together; without them only the cross-entropy trains."""
    named = {"sampler": sampler, "reward": reward, "baseline": baseline}
    missing = [key for key, part in named.items() if part is None]
    if missing and len(missing) < len(named):
        there = ", ".join(key for key in named if key not in missing)
        yield (
            f"{', '.join(missing)}: missing, but the recipe has {there}; give sampler, reward and "
            "baseline to train on rollouts, or none of the three for SFT"
        )
    if missing == list(named):
        if objective.gamma == 0:
            yield (
                "objective.gamma = 0: nothing is left to train on, for the recipe has no reward; "
                "set objective.gamma=1, or give sampler, reward and baseline"
            )
        if objective.importance.level != "off":
            yield (
                f"objective.importance.level = {objective.importance.level}: weighs "
                "rollouts, and the recipe has no sampler; leave it out"
            )


def features_are_used(
    reward: RewardPart | None,
    feature_map: Part | None,
    transforms: Sequence[Part],
    sampler: Part | None,
) -> Iterator[str]:
    """A feature map if the reward looks at features; transforms if there is a feature map."""
    if reward is not None and reward.uses_features() and feature_map is None:
        said = type(reward).uses_features is not RewardPart.uses_features
        yield (
            f"feature_map: missing, but the reward {type(reward).__name__} uses features; set "
            "feature_map._component_=layer_concat"
            + ("" if said else ", or give the class `def uses_features(self) -> bool`")
        )
    if feature_map is not None and reward is None and sampler is None:
        yield (
            f"feature_map: {type(feature_map).__name__} is for a reward, and the recipe has none; "
            "leave it out, or give sampler, reward and baseline"
        )
    if transforms and feature_map is None:
        yield "transforms: change features, and the recipe has no feature_map; leave them out"


def pairs_need_two(
    sampler: SamplerPart | None, reward: RewardPart | None, baseline: BaselinePart | None
) -> Iterator[str]:
    """A reward that compares rollouts needs two of them, and so may a baseline."""
    if sampler is None or reward is None or baseline is None:
        return
    if sampler.n == 1 and reward.pairwise():
        yield (
            "sampler.n = 1: the reward compares a context's rollouts with each other, so it needs "
            "two or more; set sampler.n=2, or take the pairwise terms out (reward.diversity=0)"
        )
    elif sampler.n < baseline.fewest_rollouts:
        yield (
            f"sampler.n = {sampler.n}: with the baseline {type(baseline).__name__} nothing is "
            f"learned from fewer than {baseline.fewest_rollouts} rollouts of a context; set "
            f"sampler.n={baseline.fewest_rollouts} or baseline=moving_average"
        )


def micro_batch_fits(training: StepOptions) -> Iterator[str]:
    """A micro-batch is a part of a step."""
    micro_batch, documents = training.micro_batch, training.documents_per_step
    if micro_batch != "auto" and micro_batch > documents:
        yield (
            f"training.micro_batch = {micro_batch}: is more than training.documents_per_step = "
            f"{documents}; set training.micro_batch={documents} or less"
        )


def documents_hold_an_anchor(plan: Part, length: int) -> Iterator[str]:
    """The longest document has room for one anchor and its reference."""
    if isinstance(plan, Plan) and plan.shortest_document > length:
        yield (
            f"documents.length = {length}: leaves no anchor, for the plan needs documents of "
            f"{plan.shortest_document} tokens or more; set documents.length="
            f"{plan.shortest_document}, or make the plan's start or rollout_length smaller"
        )


def adapters_are_kept(model: ModelOptions, checkpoint: CheckpointOptions) -> Iterator[str]:
    """A second adapter is trained on a model that the first is merged into, and saved alone it
    would not say so."""
    if model.lora is None or checkpoint.merge_adapter:
        return
    if adapter_folder(model) is not None:
        yield (
            f"model.path = {model.path}: holds an adapter, which would be missing from "
            "checkpoints that hold another alone; set checkpoint.merge_adapter=true"
        )


def compiles(training: StepOptions, model: ModelOptions) -> Iterator[str]:
    """FlexAttention compiles itself, and nothing has tried it inside compiled layers."""
    if training.compile and model.attention == "flex":
        yield (
            "training.compile = true: does not go with model.attention = flex, whose kernels are "
            "compiled already; set training.compile=false, or model.attention=tree"
        )


SCORING = ("feature_map", "transforms", "reward", "baseline")
"""The sections of the parts that rollouts are scored with."""


def biased(parts: Mapping[str, Part], objective: ObjectiveOptions) -> Iterator[str]:
    """What `require_unbiased` refuses: parts that say that their gradient is biased, or do not say
    that it is not, and such an objective."""
    for key, part in parts.items():
        claim = part.claim()
        if claim is None and key.split(".")[0] in ("sampler", *SCORING):
            yield (
                f"{key}: {type(part).__name__} does not say whether it keeps the gradient "
                "unbiased, and the recipe says require_unbiased: true; give its class a `claim()`"
            )
        if claim is not None and not claim.unbiased:
            yield (
                f"{key}: {type(part).__name__} does not keep the gradient unbiased ({claim.why}), "
                "and the recipe says require_unbiased: true"
            )
    plan, reward = parts["plan"], parts.get("reward")
    claim = objective.claim(
        rollouts_end=not isinstance(plan, Plan) or plan.stop_at_eos,
        pairwise=isinstance(reward, RewardPart) and reward.pairwise(),
    )
    if not claim.unbiased:
        yield (
            f"objective: does not keep the gradient unbiased ({claim.why}), and the recipe says "
            "require_unbiased: true"
        )


def find_problems_of_processes(
    size: int,
    parts: Mapping[str, Part],
    training: StepOptions,
    model: ModelOptions,
    *,
    replicas: int,
) -> Iterator[str]:
    """One line for everything in a recipe that `size` processes cannot do together."""
    if size == 1:
        return
    for key, part in parts.items():
        if (why := part.single_process()) is not None:
            yield f"{key}: {type(part).__name__} works in one process only, not in {size}: {why}"
    count = training.documents_per_step
    if count % size:
        near = {max(count // size, 1) * size, (count // size + 1) * size}
        yield (
            f"training.documents_per_step = {count}: cannot be divided over {size} processes; take "
            f"{' or '.join(map(str, sorted(near)))}, or start another number of processes"
        )
    if size % replicas:
        yield f"parallel.replicas = {replicas}: {size} processes do not divide into so many groups"
    if training.measure_gradients_every is not None:
        yield (
            f"training.measure_gradients_every = {training.measure_gradients_every}: needs whole "
            f"gradients in one process, and this is one of {size}; set it to null"
        )
    if training.compile:
        yield (
            f"training.compile = true: layers are compiled in one process so far, and this is one "
            f"of {size}; set it to false"
        )
    if model.lora is not None and model.lora.quantize_base:
        yield (
            f"model.lora.quantize_base = true: weights in 4 bits are not divided so far, and this "
            f"is one of {size} processes; set it to false"
        )
    if ":" in model.device:
        yield (
            f"model.device = {model.device}: {size} processes cannot all be on it; take "
            "auto or cuda, and each takes a GPU of its own"
        )


def loggers_take_their_arguments(loggers: Sequence[Component]) -> Iterator[str]:
    """By their signatures alone: to make one may open files, and connections."""
    for i, logger in enumerate(loggers):
        try:
            logger.bind()
        except UserError as error:
            yield f"metric_loggers.{i}: {error}"
