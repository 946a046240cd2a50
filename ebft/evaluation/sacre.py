"""sacrebleu's metrics, as statistics of sentences and a function of their sum."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Float

from ebft.errors import UserError
from ebft.lazy import Tensor, torch
from ebft.parts.packages import install

Name = Literal["bleu", "chrf", "chrf++"]
Tokenizer = Literal[
    "13a", "intl", "zh", "char", "none", "ja-mecab", "ko-mecab",
    "flores101", "flores200", "spm", "spBLEU-1K",
]  # fmt: skip
"""sacrebleu's own names; for the last four it downloads a model."""
MECAB = {"ja-mecab": "ja", "ko-mecab": "ko"}
"""Tokenizers that need MeCab, and sacrebleu's extra that installs it."""
TITLES: dict[Name, str] = {"bleu": "BLEU", "chrf": "chrF", "chrf++": "chrF++"}


def lacks(name: Name, *, tokenize: Tokenizer) -> str | None:
    """Returns a metric's missing requirement, and how to get it. Nothing is downloaded."""
    try:
        from sacrebleu.metrics import BLEU
        from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS
        from sacrebleu.utils import SACREBLEU_DIR
    except ImportError:
        return f"BLEU and chrF need sacrebleu, which is not installed; run: {install('sacrebleu')}"
    if name != "bleu":
        return None
    if tokenize not in BLEU.TOKENIZERS:
        return f"tokenize = {tokenize}: sacrebleu has {', '.join(sorted(BLEU.TOKENIZERS))}"
    if tokenize in SPM_MODELS:
        model = Path(SACREBLEU_DIR, "models", Path(SPM_MODELS[tokenize]["url"]).name)
        if find_spec("sentencepiece") is None:
            return f"tokenize = {tokenize}: needs sentencepiece: pip install sentencepiece"
        if not model.is_file():
            return (
                f"tokenize = {tokenize}: needs a model that is not here yet ({model}); download "
                'it once, with a network: python -c "from sacrebleu.metrics import BLEU; '
                f"BLEU(tokenize='{tokenize}')\""
            )
    elif tokenize in MECAB:
        try:
            BLEU(tokenize=tokenize)
        except (RuntimeError, AssertionError):
            return (
                f"tokenize = {tokenize}: needs MeCab with its dictionary: "
                f"pip install 'sacrebleu[{MECAB[tokenize]}]'"
            )
    return None


class SacreMetric:
    """One of sacrebleu's metrics; `figure` of the summed statistics is its `corpus_score`.

    sacrebleu has no public function for this step, which its own bootstrap uses too; a test
    compares it with `corpus_score`. Raises `UserError` for a missing requirement (`lacks`).
    """

    def __init__(self, name: Name, *, tokenize: Tokenizer) -> None:
        if problem := lacks(name, tokenize=tokenize):
            raise UserError(problem)
        from sacrebleu.metrics import BLEU, CHRF

        self.title = TITLES[name]
        if name == "bleu":
            self._metric: Any = BLEU(tokenize=tokenize)
        else:
            self._metric = CHRF(word_order=2 if name == "chrf++" else 0)
        self.size = self._statistics([""], [""]).shape[1]

    @property
    def signature(self) -> str:
        """What sacrebleu recommends to report with a figure: version, tokenizer and so on."""
        return str(self._metric.get_signature())

    def statistics(
        self, translations: Sequence[str], references: Sequence[str]
    ) -> Float[Tensor, "N K"]:
        """Returns the statistics of each sentence, which are summed over the corpus."""
        if not translations:
            return torch.zeros(0, self.size, dtype=torch.float64)
        return self._statistics(translations, references)

    def figure(self, total: Sequence[float]) -> float:
        """Returns the figure of a corpus with the summed statistics `total`, in [0, 100]."""
        counts = [round(count) for count in total]
        return float(self._metric._compute_score_from_stats(counts).score)

    def _statistics(
        self, translations: Sequence[str], references: Sequence[str]
    ) -> Float[Tensor, "N K"]:
        rows = self._metric._extract_corpus_statistics(translations, [references])
        return torch.tensor(rows, dtype=torch.float64)
