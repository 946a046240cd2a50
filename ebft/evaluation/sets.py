"""The sets that a run measures: its own held-out documents, and those of `evaluation.sets`.

`check_plans` checks that evaluators can measure their documents, before any of them runs.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from ebft.data.corpus import Corpus
from ebft.data.documents import DocumentOptions, Tokenized, tokenize
from ebft.data.order import DocumentOrder
from ebft.errors import UserError
from ebft.evaluation.labelled import build_evaluator
from ebft.evaluation.measure import EvaluationSet
from ebft.evaluation.options import EvaluationOptions, SetOptions
from ebft.evaluation.rollouts import check_rollouts_fit
from ebft.models.shape import check_context_length, context_length
from ebft.models.tokenizer import embedded_tokens
from ebft.parts.interfaces import DataSource
from ebft.parts.kinds import EvaluatorPart
from ebft.parts.part import Resources
from ebft.plans.completion import Completion
from ebft.rollout.records import Document

log = logging.getLogger("ebft")

HELD_OUT_SEED = 0
"""A constant, so that runs with different seeds choose the same held-out documents."""


def make_evaluation_sets(
    evaluation: EvaluationOptions, resources: Resources, held_out: Mapping[str, Tokenized]
) -> list[EvaluationSet]:
    """Builds the evaluators, and chooses the documents of each set."""
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
        check_context_length(one.length, resources.policy.config, key=f"{key}.length")
        others.append(make_benchmark(one, resources))
        check_plans(one.evaluators, others[-1].documents, key=key, reads=reads)
    return own + others


def make_benchmark(options: SetOptions, resources: Resources) -> EvaluationSet:
    """Returns a set of `evaluation.sets`, with its documents and evaluators."""
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


def choose(documents: Corpus, count: int) -> list[Document]:
    """Returns at most `count` of the documents, the same in every run."""
    order = DocumentOrder(HELD_OUT_SEED, len(documents))
    places = (order(place, 1)[0] for place in range(len(documents)))  # as many as are needed
    return documents.choose(places, count)


def check_plans(
    evaluators: Sequence[EvaluatorPart],
    documents: Sequence[Document],
    *,
    key: str,
    reads: int | None,
) -> None:
    """Raises `UserError` for an evaluator whose plan accepts none of the documents, or whose
    rollouts would exceed the tokens that the model `reads`.

    This check comes early, because an error later would lose other measurements. `key` is the key
    of the section with `evaluators`.
    """
    for number, part in enumerate(evaluators):
        where, plan = f"{key}.evaluators.{number}", part.rollout_plan()
        if plan is None:
            continue
        accepted = [document for document in documents if plan.accepts(document)]
        if not accepted:
            raise UserError(
                f"{where}: its plan accepts none of the {len(documents)} documents; it needs "
                f"{plan.shortest_document} tokens or more, and a plan completion needs prompts"
            )
        check_rollouts_fit(plan(accepted), reads, where=where)
