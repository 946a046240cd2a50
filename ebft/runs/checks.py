"""Checks that concern several sections of a recipe: mistakes in how its parts are combined."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ebft.errors import UserError
from ebft.models.folders import adapter_folder
from ebft.parts.interfaces import Plan
from ebft.parts.kinds import BaselinePart, RewardPart, SamplerPart
from ebft.runs.trial import optimizer_problems, schedule_problems

if TYPE_CHECKING:
    from ebft.config.component import Component
    from ebft.models.options import ModelOptions
    from ebft.parts.part import Part
    from ebft.runs.options import CheckpointOptions, FineTuneOptions, StepOptions
    from ebft.training.objective import ObjectiveOptions


def find_problems(options: FineTuneOptions) -> list[str]:
    """One line for each problem, with the key, the value and a remedy."""
    plan, sampler, training = options.plan, options.sampler, options.training
    reward, baseline = options.reward, options.baseline
    return [
        *rollout_problems(sampler, reward, baseline, options.objective),
        *feature_problems(reward, options.feature_map, options.transforms, sampler),
        *pair_problems(sampler, reward, baseline),
        *ahead_problems(training, sampler, options.objective),
        *length_problems(plan, options.documents.length),
        *adapter_problems(options.model, options.checkpoint),
        *upload_problems(options.checkpoint),
        *compile_problems(training, options.model),
        *optimizer_problems(options.optimizer, options.model.device),
        *schedule_problems(options.lr_scheduler, options.optimizer, training.steps),
        *logger_problems(options.metric_loggers),
        *(bias_problems(options.parts(), options.objective) if options.require_unbiased else ()),
    ]


def rollout_problems(
    sampler: Part | None, reward: Part | None, baseline: Part | None, objective: ObjectiveOptions
) -> Iterator[str]:
    """Sampler, reward and baseline must be given together, or none of them (SFT)."""
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
                "objective.gamma = 0: there is nothing to train on, because the recipe has no "
                "reward; set objective.gamma=1, or give sampler, reward and baseline"
            )
        if objective.importance.level != "off":
            yield (
                f"objective.importance.level = {objective.importance.level}: weights rollouts, but "
                "the recipe has no sampler; leave it out"
            )


def feature_problems(
    reward: RewardPart | None,
    feature_map: Part | None,
    transforms: Sequence[Part],
    sampler: Part | None,
) -> Iterator[str]:
    """A reward may need a feature map; a feature map needs a reward, and transforms need a feature
    map."""
    if reward is not None and reward.uses_features() and feature_map is None:
        said = type(reward).uses_features is not RewardPart.uses_features
        yield (
            f"feature_map: missing, but the reward {type(reward).__name__} uses features; set "
            "feature_map._component_=layer_concat"
            + ("" if said else ", or give the class `def uses_features(self) -> bool`")
        )
    if feature_map is not None and reward is None and sampler is None:
        yield (
            f"feature_map: {type(feature_map).__name__} is for a reward, but the recipe has none; "
            "leave it out, or give sampler, reward and baseline"
        )
    if transforms and feature_map is None:
        yield "transforms: change features, but the recipe has no feature_map; leave them out"


def pair_problems(
    sampler: SamplerPart | None, reward: RewardPart | None, baseline: BaselinePart | None
) -> Iterator[str]:
    """Some rewards and baselines need several rollouts of each context."""
    if sampler is None or reward is None or baseline is None:
        return
    if sampler.n == 1 and reward.pairwise():
        yield (
            "sampler.n = 1: the reward compares a context's rollouts with each other, so it needs "
            "two or more; set sampler.n=2, or remove the pairwise terms (reward.diversity=0)"
        )
    elif sampler.n < baseline.fewest_rollouts:
        yield (
            f"sampler.n = {sampler.n}: the baseline {type(baseline).__name__} needs "
            f"{baseline.fewest_rollouts} rollouts of a context or more; set "
            f"sampler.n={baseline.fewest_rollouts} or baseline=moving_average"
        )


def ahead_problems(
    training: StepOptions, sampler: SamplerPart | None, objective: ObjectiveOptions
) -> Iterator[str]:
    """Sampling ahead needs rollouts, a sampler that can do it, and importance weights."""
    if training.sample_ahead is None:
        return
    says = f"training.sample_ahead = {training.sample_ahead}"
    if sampler is None:
        yield f"{says}: there are no rollouts, because the recipe has no sampler; leave it out"
        return
    if not sampler.has_own_weights(processes=1):
        yield (
            f"{says}: the sampler {type(sampler).__name__} computes with the policy's own weights, "
            "which training changes meanwhile; take a sampler with a copy of them in another "
            "process, or leave it out"
        )
    if objective.importance.level == "off":
        yield (
            f"{says}: rollouts are sampled from older weights than are trained; set "
            "objective.importance.level=sequence, or leave it out"
        )


def length_problems(plan: Part, length: int) -> Iterator[str]:
    """The longest document must have room for an anchor and its reference."""
    if isinstance(plan, Plan) and plan.shortest_document > length:
        yield (
            f"documents.length = {length}: leaves no anchor, because the plan needs documents of "
            f"{plan.shortest_document} tokens or more; set documents.length="
            f"{plan.shortest_document}, or make the plan's start or rollout_length smaller"
        )


def adapter_problems(model: ModelOptions, checkpoint: CheckpointOptions) -> Iterator[str]:
    """A checkpoint with only a second adapter would lack the first, which is merged before
    training."""
    if model.lora is None or checkpoint.merge_adapter:
        return
    if adapter_folder(model) is not None:
        yield (
            f"model.path = {model.name}: holds an adapter, which would be missing from "
            "checkpoints of a second adapter alone; set checkpoint.merge_adapter=true"
        )


def upload_problems(checkpoint: CheckpointOptions) -> Iterator[str]:
    """Only checkpoints that are saved can be uploaded."""
    hub, saved = checkpoint.hub, checkpoint.every
    if hub is None or hub.every is None:
        return
    says = f"checkpoint.hub.every = {hub.every}"
    if saved is None:
        yield (
            f"{says}: without checkpoint.every, only the last checkpoint is saved; set "
            f"checkpoint.every={hub.every}, or leave it out"
        )
    elif hub.every % saved:
        up = (hub.every // saved + 1) * saved
        yield f"{says}: is not a multiple of checkpoint.every = {saved}; set {up}, or leave it out"


def compile_problems(training: StepOptions, model: ModelOptions) -> Iterator[str]:
    """FlexAttention compiles its own kernels, and is not tested inside compiled layers."""
    if training.compile and model.attention == "flex":
        yield (
            "training.compile = true: cannot be combined with model.attention = flex, whose "
            "kernels are already compiled; set training.compile=false, or model.attention=tree"
        )


SCORING = ("feature_map", "transforms", "reward", "baseline")
"""The sections of the parts that score rollouts."""


def bias_problems(parts: Mapping[str, Part], objective: ObjectiveOptions) -> Iterator[str]:
    """What `require_unbiased` refuses: an objective or parts whose `claim()` says that the gradient
    is biased, and parts that sample or score rollouts and have no claim."""
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


def problems_in(size: int, options: FineTuneOptions) -> list[str]:
    """One line for each problem of a fine-tuning recipe that is run in `size` processes."""
    problems = process_problems(
        size, options.parts(), options.training, options.model,
        replicas=options.parallel.replicas,
    )  # fmt: skip
    return list(problems)


def process_problems(
    size: int,
    parts: Mapping[str, Part],
    training: StepOptions,
    model: ModelOptions,
    *,
    replicas: int,
) -> Iterator[str]:
    """One line for each problem of a recipe that is run in `size` processes."""
    if size == 1:
        return
    for key, part in parts.items():
        if (why := part.single_process()) is not None:
            yield f"{key}: {type(part).__name__} works in one process only, not in {size}: {why}"
    count = training.documents_per_step
    if count % size:
        near = {max(count // size, 1) * size, (count // size + 1) * size}
        yield (
            f"training.documents_per_step = {count}: cannot be divided over {size} processes; set "
            f"{' or '.join(map(str, sorted(near)))}, or start another number of processes"
        )
    if size % replicas:
        yield (
            f"parallel.replicas = {replicas}: {size} processes cannot be divided into {replicas} "
            "groups; set it to a divisor of their number"
        )
    yield from shared_device_problems(size, model)


def shared_device_problems(size: int, model: ModelOptions) -> Iterator[str]:
    """A device with a number belongs to one process."""
    if size > 1 and ":" in model.device:
        yield (
            f"model.device = {model.device}: {size} processes cannot share it; set auto or cuda, "
            "which give each process its own GPU"
        )


def logger_problems(loggers: Sequence[Component]) -> Iterator[str]:
    """Checks the arguments against signatures; making a logger may open files and connections."""
    for i, logger in enumerate(loggers):
        try:
            logger.bind()
        except UserError as error:
            yield f"metric_loggers.{i}: {error}"
