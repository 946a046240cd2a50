"""Evaluator `comet`: COMET of greedy translations, beside the figures of `translation`."""

from __future__ import annotations

from ebft.evaluation.translation import Translation, TranslationEvaluator, Translations
from ebft.lazy import torch
from ebft.parts.measurements import CorpusMeasurement, Measurement
from ebft.parts.part import Resources
from ebft_comet.options import CometOptions


class Comet(CometOptions, Translation):
    """The mean of COMET's scores of the translations that `translation` measures, and its figures.

    Source: Rei et al. 2020, COMET; the default model is COMET-22, Rei et al. 2022.
    """

    def build(self, resources: Resources) -> CometEvaluator:
        return CometEvaluator(self, resources)


class CometEvaluator(TranslationEvaluator):
    """`Comet` bound to the policy, its tokenizer and a COMET model."""

    def __init__(self, options: Comet, resources: Resources) -> None:
        super().__init__(options, resources)
        self._options, self._scorer = options, options.scorer()

    def measure(self, translations: Translations) -> list[Measurement | CorpusMeasurement]:
        """Returns the figures of `translation`, and COMET."""
        scores = self._scorer(self._options.segments(translations.attempts))
        comet = Measurement(
            "COMET",
            self._options.model_name(),
            translations.spread(torch.tensor(scores, dtype=torch.float64)),
            translations.weight(),
        )
        return [*super().measure(translations), comet]
