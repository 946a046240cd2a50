"""The sets that a run measures: held-out documents of its own, and those of `evaluation.sets`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from ebft.data.documents import DocumentOptions, Tokenized, tokenize
from ebft.data.on_demand import OnDemand
from ebft.data.order import DocumentOrder
from ebft.evaluation.labelled import build_evaluator
from ebft.evaluation.measure import EvaluationSet
from ebft.evaluation.options import SetOptions
from ebft.evaluation.plans import check_plans
from ebft.interfaces import DataSource
from ebft.models.context_length import context_length
from ebft.models.vocabulary import embedded_tokens
from ebft.parts import Resources
from ebft.rollout.completion import Completion
from ebft.rollout.records import Document
from ebft.runs.documents import check_context_length
from ebft.runs.model_recipe_options import ModelRecipeOptions

log = logging.getLogger("ebft")

HELD_OUT_SEED = 0
"""Held-out documents are chosen alike in all runs, whatever their seed."""


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
        texts,
        resources.tokenizer,
        length,
        Completion(rollout_length=1),
        split=options.name,
        embeds=embedded_tokens(resources.policy),
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
