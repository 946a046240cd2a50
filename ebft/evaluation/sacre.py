"""sacrebleu's metrics, taken apart into what each sentence adds and the figure of the sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ebft.errors import UserError

Name = Literal["bleu", "chrf", "chrf++"]
TITLES: dict[Name, str] = {"bleu": "BLEU", "chrf": "chrF", "chrf++": "chrF++"}


class SacreMetric:
    """One of sacrebleu's metrics; `figure` of the summed statistics is its `corpus_score`.

    sacrebleu has no public name for that step, which its own bootstrap takes too; a test holds it
    to `corpus_score`. Raises `UserError` if sacrebleu is not installed or has no such tokenizer.
    """

    def __init__(self, name: Name, *, tokenize: str) -> None:
        try:
            from sacrebleu.metrics import BLEU, CHRF
        except ImportError as error:
            raise UserError("BLEU and chrF need sacrebleu: pip install 'ebft[eval]'") from error
        self.title = TITLES[name]
        if name == "bleu":
            tokenizers = sorted(BLEU.TOKENIZERS)
            if tokenize not in tokenizers:
                raise UserError(f"tokenize = {tokenize}: sacrebleu has {', '.join(tokenizers)}")
            self._metric: Any = BLEU(tokenize=tokenize)
        else:
            self._metric = CHRF(word_order=2 if name == "chrf++" else 0)
        self.size = self._statistics([""], [""]).shape[1]

    @property
    def signature(self) -> str:
        """What sacrebleu asks to be reported with a figure: version, tokenizer and so on."""
        return str(self._metric.get_signature())

    def statistics(
        self, translations: Sequence[str], references: Sequence[str]
    ) -> Float[Tensor, "N K"]:
        """What each sentence adds to the corpus."""
        if not translations:
            return torch.zeros(0, self.size, dtype=torch.float64)
        return self._statistics(translations, references)

    def figure(self, total: Sequence[float]) -> float:
        """The figure of a corpus whose sentences add up to `total`, in [0, 100]."""
        counts = [round(count) for count in total]
        return float(self._metric._compute_score_from_stats(counts).score)

    def _statistics(
        self, translations: Sequence[str], references: Sequence[str]
    ) -> Float[Tensor, "N K"]:
        rows = self._metric._extract_corpus_statistics(translations, [references])
        return torch.tensor(rows, dtype=torch.float64)
