"""Evaluator `translation`: BLEU and chrF of greedy completions, with references of the data."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from jaxtyping import Float
from pydantic import Field, PositiveInt

from ebft.evaluation.labelled import LabelledPart
from ebft.evaluation.rollouts import EvaluationRollouts, places
from ebft.evaluation.sacre import Name, SacreMetric, Tokenizer, lacks
from ebft.lazy import Tensor, no_grad, torch
from ebft.parts.measurements import CorpusMeasurement, Measurement
from ebft.parts.part import Resources
from ebft.plans.completion import Completion
from ebft.rollout.records import Document
from ebft.verifiers.attempts import Attempt, StopTexts, attempts_of, cut

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger("ebft")


class Translation(LabelledPart):
    """sacrebleu's figures for the greedy completion of each prompt.

    BLEU and chrF are corpus scores, not means over sentences; their intervals are the jackknife's.
    """

    rollout_length: PositiveInt = Field(
        128, description="largest number of tokens of a translation"
    )
    metrics: tuple[Name, ...] = Field(
        ("bleu", "chrf"), min_length=1, description="which of sacrebleu's metrics"
    )
    tokenize: Tokenizer = Field("13a", description="BLEU's tokenizer, by sacrebleu's name")
    stop: StopTexts = Field(
        ("\n",), description="a translation ends before the first of these texts"
    )

    def rollout_plan(self) -> Completion:
        return Completion(rollout_length=self.rollout_length)

    def missing(self) -> str | None:
        found = (lacks(name, tokenize=self.tokenize) for name in self.metrics)
        return next((problem for problem in found if problem), None)

    def build(self, resources: Resources) -> TranslationEvaluator:
        return TranslationEvaluator(self, resources)


@dataclass(frozen=True, slots=True)
class Translations:
    """Greedy completions of the documents that have a prompt.

    Each attempt's `rollout` is the translation: stripped, and cut before the first stop text.
    `places` are the indices of their documents, of which there are `documents`.
    """

    attempts: list[Attempt]
    places: list[int]
    documents: int

    def spread(self, rows: Float[Tensor, "N ..."]) -> Float[Tensor, "B ..."]:
        """Returns the rows of the translations as rows of documents; 0 for one without."""
        of_documents = rows.new_zeros(self.documents, *rows.shape[1:])
        of_documents[self.places] = rows
        return of_documents

    def weight(self) -> Float[Tensor, " B"]:
        """1 for a document with a translation, else 0."""
        return self.spread(torch.ones(len(self.places), dtype=torch.float64))


class TranslationEvaluator:
    """`Translation` bound to the policy and its tokenizer."""

    def __init__(self, options: Translation, resources: Resources) -> None:
        self._stop, self._tokenizer = options.stop, resources.tokenizer
        self._metrics = [
            SacreMetric(name, tokenize=options.tokenize) for name in dict.fromkeys(options.metrics)
        ]
        plan = Completion(rollout_length=options.rollout_length)
        self._greedy = EvaluationRollouts(plan, resources, n=1, top_k=1)
        for metric in self._metrics:
            log.info("%s: %s", metric.title, metric.signature)

    def __call__(
        self, policy: PreTrainedModel, documents: Sequence[Document]
    ) -> Sequence[Measurement | CorpusMeasurement]:
        return self.measure(self.translate(policy, documents))

    @no_grad
    def translate(self, policy: PreTrainedModel, documents: Sequence[Document]) -> Translations:
        """Returns the policy's greedy translations."""
        rollouts = self._greedy(policy, documents)
        if rollouts is None:
            return Translations([], [], len(documents))
        attempts = [
            replace(one, rollout=cut(one.rollout.strip(), self._stop).strip())
            for one in attempts_of(rollouts, self._tokenizer)
        ]
        return Translations(attempts, places(documents, rollouts.contexts), len(documents))

    def measure(self, translations: Translations) -> list[Measurement | CorpusMeasurement]:
        """Returns the figure of each of the metrics."""
        texts = [one.rollout for one in translations.attempts]
        references = [one.reference.strip() for one in translations.attempts]
        return [
            CorpusMeasurement(
                metric.title,
                "of 100",
                translations.spread(metric.statistics(texts, references)),
                translations.weight(),
                metric.figure,
            )
            for metric in self._metrics
        ]
