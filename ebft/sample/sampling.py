"""`ebft sample`: what a base model and a checkpoint write after the same contexts."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ebft.data.prompts import prompt_contexts
from ebft.errors import NumericalError, UserError
from ebft.evaluation.measure import clusters
from ebft.evaluation.rollouts import EVALUATION_STEP, check_rollouts_fit
from ebft.evaluation.sets import choose
from ebft.models.lora import cast_base
from ebft.models.shape import context_length
from ebft.models.tokenizer import text_of
from ebft.parts.interfaces import FeatureMap, Plan, Sampler, features_of
from ebft.parts.kinds import FeatureMapPart, RewardPart, SamplerPart
from ebft.parts.part import Part, Resources
from ebft.parts.splits import Example
from ebft.report.card import shared_name
from ebft.report.samples import Sample, SampledContext, Samples
from ebft.rollout.contexts import not_finite_in
from ebft.rollout.records import Contexts, Rollouts, Scored
from ebft.runs.options import FineTuneOptions, ModelRecipeOptions
from ebft.runs.setup import held_out_documents, read_splits
from ebft.sample.two_models import load_both
from ebft.samplers.hf_tree import HfTree
from ebft.scoring.kernels import cosine, to_references

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ebft.parts.registry import Registry

BASE, CHECKPOINT = "base", "checkpoint"
"""The roles of the two models."""
N = 4
"""Rollouts of each context, for a recipe without a sampler."""

log = logging.getLogger("ebft")


def sample_both(
    options: ModelRecipeOptions,
    registry: Registry,
    *,
    checkpoint: str,
    base: str | None,
    prompts: Sequence[Example] | None,
    n: int | None,
    count: int,
) -> Samples:
    """Samples from the base model and from the checkpoint, after the same contexts and with the
    same random numbers, and scores both.

    The contexts are `prompts`, or the last ones of `count` held-out documents of the recipe. `n` is
    the number of rollouts of each; None: the recipe's. `base` is in place of the model that the
    recipe trains. Raises `UserError` for models, data or prompts that cannot be used.
    """
    if missing := options.missing_for_parts():
        raise UserError(*missing)
    resources = load_both(options, checkpoint, base)
    cast_base(resources.policy, resources.precision)
    plan: Plan = options.plan.build(resources)
    if prompts is None:
        contexts = held_out_contexts(options, resources, plan, count)
    else:
        length = plan.rollout_length
        contexts = prompt_contexts(prompts, resources.tokenizer, rollout_length=length)
    check_rollouts_fit(contexts, context_length(resources.policy.config), where="contexts")
    contexts = contexts.one_by_one().to(resources.device)
    chosen = ChosenParts.of(options, n=n, scores=bool(contexts.reference_mask.any()))
    models = {BASE: resources.load_base(), CHECKPOINT: resources.policy}
    sampler: Sampler = chosen.sampler.build(resources)
    written = {}
    for role, model in models.items():
        log.info("sampling from the %s: %d contexts, n = %d …", role, len(contexts), sampler.n)
        written[role] = _samples(model, sampler, contexts, chosen, resources)
    of_recipe = options.model.base or options.model.path
    named = {
        BASE: base or (of_recipe if of_recipe is not None else "the new model, before training"),
        CHECKPOINT: checkpoint,
    }
    return Samples(
        title=f"Samples of {_short(checkpoint)}",
        models=named,
        settings=chosen.described(registry, contexts, seed=options.seed),
        contexts=_contexts(contexts, written, resources),
    )


@dataclass(frozen=True, slots=True)
class ChosenParts:
    """The parts that sample and score: the recipe's, or for a recipe without rollouts `hf_tree`
    and the feature map of its evaluators."""

    sampler: SamplerPart
    feature_map: FeatureMapPart | None
    transforms: Sequence[Part]
    reward: RewardPart | None

    @classmethod
    def of(cls, options: ModelRecipeOptions, *, n: int | None, scores: bool) -> ChosenParts:
        """Chooses them. Raises `UserError` if n is too small for the reward, unless nothing is
        scored, because there are no references."""
        sampler: SamplerPart = HfTree(n=N)
        feature_map, reward = None, None
        transforms: Sequence[Part] = ()
        if isinstance(options, FineTuneOptions):
            sampler = options.sampler or sampler
            feature_map, transforms = options.feature_map, options.transforms
            reward = options.reward
        if n is not None:
            sampler = sampler.model_copy(update={"n": n})
        if scores and reward is not None and reward.pairwise() and sampler.n < 2:
            raise UserError(
                f"--n {sampler.n}: the recipe's reward compares the rollouts of a context with "
                "each other; give 2 or more"
            )
        measured = options.evaluation.feature_maps()
        return cls(sampler, feature_map or next(iter(measured), None), transforms, reward)

    def described(self, registry: Registry, contexts: Contexts, *, seed: int) -> dict[str, str]:
        """How it was sampled and scored, for readers."""
        options = {
            name: value
            for name in ("n", "temperature", "top_k", "top_p")
            if (value := getattr(self.sampler, name, None)) is not None
        }
        name = registry.name_of(type(self.sampler))
        listed = ", ".join(f"{key} = {value}" for key, value in options.items())
        found = {
            "sampler": f"{name}: {listed}; at most {contexts.rollout_length} tokens; seed {seed}"
        }
        if self.feature_map is not None:
            found["features"] = registry.name_of(type(self.feature_map))
        if self.reward is not None:
            found["reward"] = registry.name_of(type(self.reward))
        return found


def held_out_contexts(
    options: ModelRecipeOptions, resources: Resources, plan: Plan, count: int
) -> Contexts:
    """The last context of each of `count` held-out documents, the same in every run."""
    splits = read_splits(options.data, options.documents, resources)
    documents, *_ = held_out_documents(splits, options.documents, resources, plan).values()
    contexts = plan(choose(documents.documents, count))
    of_document = contexts.row
    last = torch.cat([of_document[1:] != of_document[:-1], torch.tensor([True])])
    return pick(contexts, last.nonzero()[:, 0])


def pick(contexts: Contexts, places: Int[Tensor, " Q"]) -> Contexts:
    """The contexts at these places, of which no two are of one document."""
    rows = contexts.row[places].tolist()
    assert len(set(rows)) == len(rows), rows
    return replace(
        contexts,
        documents=tuple(contexts.documents[row] for row in rows),
        tokens=contexts.tokens[contexts.row[places]],
        lengths=contexts.lengths[contexts.row[places]],
        row=torch.arange(len(rows), device=contexts.row.device),
        anchor=contexts.anchor[places],
        reference=contexts.reference[places],
        reference_mask=contexts.reference_mask[places],
        micro_batches=None,
    )


@torch.no_grad()
def _samples(
    model: PreTrainedModel,
    sampler: Sampler,
    contexts: Contexts,
    chosen: ChosenParts,
    resources: Resources,
) -> list[list[Sample]]:
    """The rollouts of a model after each context, with their scores."""
    # The step of evaluations, with which no step of training shares its random numbers.
    sampler.sync(model, step=EVALUATION_STEP)
    rollouts = sampler(contexts, step=EVALUATION_STEP)
    if (bad := not_finite_in(rollouts.log_probs, contexts)) is not None:
        raise NumericalError(f"log-probs of what is sampled are NaN or infinite, after {bad}")
    places = contexts.reference_mask.any(1).nonzero()[:, 0]
    alignment, reward = None, None
    if len(places):
        compared = replace(
            rollouts,
            contexts=pick(contexts, places).one_by_one(),
            tokens=rollouts.tokens[places],
            log_probs=rollouts.log_probs[places],
            mask=rollouts.mask[places],
        )
        alignment, reward = _scores(compared, chosen, resources)
    number = {place: i for i, place in enumerate(places.tolist())}
    return [
        [
            Sample(
                text_of(rollouts.tokens[p, j][rollouts.mask[p, j]].tolist(), resources.tokenizer),
                None if alignment is None or p not in number else float(alignment[number[p], j]),
                None if reward is None or p not in number else float(reward[number[p], j]),
            )
            for j in range(sampler.n)
        ]
        for p in range(len(contexts))
    ]


def _scores(
    rollouts: Rollouts, chosen: ChosenParts, resources: Resources
) -> tuple[Float[Tensor, "P n"] | None, Float[Tensor, "P n"] | None]:
    """The cosines of rollouts with their references, and the rewards; None where no part gives
    them."""
    features, alignment = None, None
    if chosen.feature_map is not None:
        feature_map: FeatureMap = chosen.feature_map.build(resources)
        features = features_of(feature_map, rollouts)
        blocks = features.layers if features.stacked else 1
        alignment = to_references(features, partial(cosine, blocks=blocks))
    if chosen.reward is None:
        return alignment, None
    if not chosen.reward.uses_features():
        features = None
    if features is not None:
        if features.per_token:
            features = features.by_token(rollouts.contexts.rollout_length)
        for transform in chosen.transforms:
            features = transform.build(resources)(features)
    terms = chosen.reward.build(resources)(rollouts, features)
    return alignment, Scored(rollouts, features, terms, terms.unary).reward()


def _contexts(
    contexts: Contexts, written: Mapping[str, list[list[Sample]]], resources: Resources
) -> list[SampledContext]:
    numbers = clusters(contexts.documents).tolist()
    found = []
    for p, document in enumerate(contexts.documents):
        reference = contexts.reference[p][contexts.reference_mask[p]].tolist()
        context = contexts.tokens[p, : int(contexts.anchor[p])].tolist()
        found.append(
            SampledContext(
                document=document.name,
                cluster=numbers[p],
                context=text_of(context, resources.tokenizer),
                reference=text_of(reference, resources.tokenizer) if reference else None,
                rollouts={role: of_role[p] for role, of_role in written.items()},
            )
        )
    return found


def _short(checkpoint: str) -> str:
    """The names of the run and of the step, or of another model."""
    path = Path(checkpoint).expanduser()
    if path.parent.name == "checkpoints":
        return f"{path.parent.parent.name}, {path.name}"
    return shared_name(checkpoint)
