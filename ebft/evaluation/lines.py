"""Lines of `evaluations.jsonl`, one figure each: written by runs, read by reports."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Annotated, Any

from jaxtyping import Float, Int
from pydantic import BaseModel, Field, TypeAdapter, model_validator

from ebft.errors import UserError
from ebft.files import (  # fmt: skip
    Amount,
    Count,
    Finite,
    Flag,
    Number,
    Text,
    parse_json,
    read_text,
    record,
    whole_lines,
)
from ebft.lazy import Tensor, torch
from ebft.parts.measurements import Measurement
from ebft.scoring.interval import mean_interval


@dataclass(frozen=True, slots=True)
class Line:
    """A figure after a number of steps; its half-width is None if it has no interval.

    In a `DocumentsLine` it is None if there are too few clusters (`Interval.too_few`).

    `set` is the evaluation set that it is of, or the task of lm-evaluation-harness.
    """

    step: Count
    name: Text
    unit: Text
    mean: Finite
    half_width_95: Amount | None
    set: Text

    def to_json(self) -> str:
        """The line itself, without its end."""
        return json.dumps({**self._figure(), "set": self.set})

    def _figure(self) -> dict[str, Any]:
        """Returns the fields that every line begins with."""
        return {
            "step": self.step,
            "name": self.name,
            "unit": self.unit,
            "mean": self.mean,
            "half_width_95": self.half_width_95,
        }


@dataclass(frozen=True, slots=True)
class DocumentsLine(Line):
    """A figure with the value, weight and cluster of each document, as in `Measurement`.

    `documents_digest` is equal for the same documents with the same tokens.
    """

    at: int | None
    documents_digest: str
    values: Float[Tensor, " B"]
    weights: Float[Tensor, " B"]
    clusters: Int[Tensor, " B"]
    share: bool

    @classmethod
    def of(cls, steps_done: int, measurement: Measurement, digest: str) -> DocumentsLine:
        """Makes a line from a result of `measure` after `steps_done` steps."""
        interval = mean_interval(measurement)
        assert measurement.clusters is not None, measurement.name
        return cls(
            step=steps_done,
            name=measurement.name,
            unit=measurement.unit,
            mean=interval.mean,
            half_width_95=None if interval.too_few else interval.half_width,
            set=measurement.of,
            at=measurement.at,
            documents_digest=digest,
            values=measurement.value,
            weights=measurement.weight,
            clusters=measurement.clusters,
            share=measurement.share,
        )

    def measurement(self) -> Measurement:
        """The measurement that the line was made of."""
        return Measurement(
            name=self.name,
            unit=self.unit,
            value=self.values,
            weight=self.weights,
            at=self.at,
            share=self.share,
            of=self.set,
            clusters=self.clusters,
        )

    @property
    def documents(self) -> int:
        """How many documents were measured."""
        return int((self.weights > 0).sum())

    def to_json(self) -> str:
        """The line itself, without its end."""
        return json.dumps(
            {
                **self._figure(),
                "documents": self.documents,
                "set": self.set,
                "at": self.at,
                "documents_digest": self.documents_digest,
                "values": self.values.tolist(),
                "weights": self.weights.tolist(),
                "clusters": self.clusters.tolist(),
                **({"share": True} if self.share else {}),
            }
        )


Length = Annotated[Count, Field(ge=1)]
"""Tokens of a completion, on an axis of logarithms."""


class Documents(BaseModel):
    """The fields of a line about its documents."""

    at: Length | None
    documents_digest: Text
    values: list[Number]
    weights: list[Number]
    # Files from before clusters were introduced count each document by itself.
    clusters: list[Count] | None = None
    share: Flag = False  # written only if true

    @model_validator(mode="after")
    def _are_of_the_same_documents(self) -> Documents:
        check_values(self.values, self.weights, self.clusters)
        return self


FIGURE, DOCUMENTS = TypeAdapter(Line), TypeAdapter(Documents)


def check_values(
    values: Sequence[float], weights: Sequence[float], clusters: Sequence[int] | None
) -> None:
    """Raises `ValueError` unless the lists have one entry per document, and a mean."""
    count = len(values)
    if len(weights) != count or (clusters is not None and len(clusters) != count):
        raise ValueError("values, weights and clusters differ in number")
    if not 0 < sum(weights) < inf:
        raise ValueError("weights: the sum over all documents must be finite and above 0")
    for i, (value, weight) in enumerate(zip(values, weights, strict=True)):
        if not weight >= 0:
            raise ValueError(f"weights.{i} = {weight}: it must not be below 0")
        if weight > 0 and not isfinite(value):
            raise ValueError(f"values.{i} = {value}: it must be finite, because it has a weight")
    for i, number in enumerate(clusters or ()):
        if not 0 <= number < count:
            raise ValueError(f"clusters.{i} = {number}: it must be below {count}, the documents")


def read_evaluations(file: Path) -> list[Line]:
    """Returns all lines in order, without a last line that was cut off.

    Raises `UserError` naming the first line that is not a figure, and the mistake in it.
    """
    try:
        text = read_text(file)
    except ValueError as error:
        raise UserError(f"{file}: cannot be read: {error}") from error
    lines = []
    for number, line in whole_lines(text):
        try:
            lines.append(_line(parse_json(line)))
        except ValueError as error:
            raise UserError(
                f"{file}, line {number}: not a figure of an evaluation: {error}"
            ) from error
    return lines


def _line(fields: Any) -> Line:
    figure = record(fields, FIGURE)
    if "values" not in fields:
        return figure
    of = record(fields, DOCUMENTS)
    clusters = list(range(len(of.values))) if of.clusters is None else of.clusters
    return DocumentsLine(
        **asdict(figure),
        at=of.at,
        documents_digest=of.documents_digest,
        values=torch.tensor(of.values, dtype=torch.float64),
        weights=torch.tensor(of.weights, dtype=torch.float64),
        clusters=torch.tensor(clusters),
        share=of.share,
    )
