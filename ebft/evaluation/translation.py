"""Evaluator `translation`: BLEU and chrF of greedy completions, with references of the data."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field, PositiveInt

from ebft.evaluation.labelled import LabelledPart
from ebft.evaluation.rollouts import EvaluationRollouts, places
from ebft.evaluation.sacre import Name, SacreMetric, Tokenizer, lacks
from ebft.lazy import no_grad, torch
from ebft.parts.measurements import CorpusMeasurement
from ebft.parts.part import Resources
from ebft.plans.completion import Completion
from ebft.rollout.records import Document
from ebft.verifiers.attempts import StopTexts, attempts_of, cut

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

    @no_grad
    def __call__(
        self, policy: PreTrainedModel, documents: Sequence[Document]
    ) -> Sequence[CorpusMeasurement]:
        rollouts = self._greedy(policy, documents)
        attempts = [] if rollouts is None else attempts_of(rollouts, self._tokenizer)
        translations = [cut(one.rollout.strip(), self._stop).strip() for one in attempts]
        references = [one.reference.strip() for one in attempts]
        place = [] if rollouts is None else places(documents, rollouts.contexts)
        weight = torch.zeros(len(documents), dtype=torch.float64)
        weight[place] = 1
        measured = []
        for metric in self._metrics:
            statistics = torch.zeros(len(documents), metric.size, dtype=torch.float64)
            statistics[place] = metric.statistics(translations, references)
            measured.append(
                CorpusMeasurement(metric.title, "of 100", statistics, weight, metric.figure)
            )
        return measured
