"""Verifiers of translations: sacrebleu's metrics of one sentence, as rewards in [0, 1].

sacrebleu is imported when a verifier is first used, because most recipes do not need it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ebft.verifiers.attempts import Attempt


def sentence_bleu(attempt: Attempt) -> float:
    """Returns sacrebleu's sentence BLEU of the rollout's first line, over 100.

    As in its `sentence_bleu`, the order of n-grams is at most that of the sentence, and counts of 0
    are smoothed.
    """
    return _of_one(_bleu(), attempt)


def sentence_chrf(attempt: Attempt) -> float:
    """Returns sacrebleu's sentence chrF of the rollout's first line, over 100."""
    return _of_one(_chrf(), attempt)


def _of_one(metric: Any, attempt: Attempt) -> float:
    score = metric.sentence_score(_line(attempt.rollout), [attempt.reference.strip()])
    return float(score.score) / 100


def _line(rollout: str) -> str:
    """The translation: what `translation` measures with its default `stop`."""
    return rollout.strip().partition("\n")[0].strip()


@cache
def _bleu() -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(effective_order=True)


@cache
def _chrf() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF()
