"""What an evaluator returns: figures with their values for every document."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int

from ebft.lazy import Tensor


@dataclass(frozen=True, slots=True)
class Measurement:
    """One figure of an evaluation with its value for every document, for intervals.

    `weight` is the number of items (tokens, contexts) that each value is a mean over, so that the
    weighted mean over documents is the figure itself. It is 0 for a document that cannot be
    measured; its value is then ignored. `at` is the x-coordinate of a figure that is a point of a
    curve: the tokens of a completion. A `share` is a fraction of documents, between 0 and 1.
    `measure` sets the rest: `of` is the name of the evaluation set, and `clusters` is the number of
    each document's cluster (`Document.cluster`); None if documents have none.
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

    `weight` is 0 for a document that cannot be measured, else 1.
    """

    name: str
    unit: str
    statistics: Float[Tensor, "B K"]
    weight: Float[Tensor, " B"]
    figure: Callable[[Sequence[float]], float]
