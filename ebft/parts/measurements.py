"""What an evaluator measures: figures with their values for every document."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Measurement:
    """One figure of an evaluation with its value for every document, for intervals.

    `weight` counts what each value is a mean over (tokens, contexts), so that the weighted mean
    over documents is the figure itself; it is 0 for a document that cannot be measured, whatever
    its value. `at` is where the figure stands on a curve that several make: the tokens of a
    completion. A `share` is of documents, between 0 and 1. `measure` fills in the rest: `of` is the
    name of the evaluation set, and `clusters` numbers what each document is a part of
    (`Document.cluster`); None if each is a whole.
    """

    name: str
    unit: str
    value: Float[Tensor, " B"]
    weight: Float[Tensor, " B"]
    at: int | None = None
    share: bool = False
    of: str = ""
    clusters: Int[Tensor, " B"] | None = None


@dataclass(frozen=True, slots=True)
class CorpusMeasurement:
    """A figure of all documents together, such as BLEU: `figure` of the sum of their `statistics`.

    `weight` is 0 for a document that cannot be measured, whatever its statistics; else 1.
    """

    name: str
    unit: str
    statistics: Float[Tensor, "B K"]
    weight: Float[Tensor, " B"]
    figure: Callable[[Sequence[float]], float]
