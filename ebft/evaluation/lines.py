"""Lines of `evaluations.jsonl`: one figure each, as runs write them and reports read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ebft.errors import UserError
from ebft.measurements import Measurement
from ebft.scoring.interval import mean_interval


@dataclass(frozen=True, slots=True)
class Line:
    """A figure after so many steps, its half-width None if it has no interval.

    Of a `DocumentsLine` that is so where there are too few clusters for one (`Interval.too_few`).

    `set` is the evaluation set that it is of, or the task of lm-evaluation-harness.
    """

    step: int
    name: str
    unit: str
    mean: float
    half_width_95: float | None
    set: str

    def to_json(self) -> str:
        """The line itself, without its end."""
        return json.dumps({**self._figure(), "set": self.set})

    def _figure(self) -> dict[str, Any]:
        """What every line begins with."""
        return {
            "step": self.step,
            "name": self.name,
            "unit": self.unit,
            "mean": self.mean,
            "half_width_95": self.half_width_95,
        }


@dataclass(frozen=True, slots=True)
class DocumentsLine(Line):
    """A figure with the value, weight and cluster of each document, as `Measurement` has them.

    `documents_digest` is equal for the same documents, tokenised alike.
    """

    at: int | None
    documents_digest: str
    values: Float[Tensor, " B"]
    weights: Float[Tensor, " B"]
    clusters: Int[Tensor, " B"]
    share: bool

    @classmethod
    def of(cls, steps_done: int, measurement: Measurement, digest: str) -> DocumentsLine:
        """What `measure` has found after so many steps, on documents with this digest."""
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

    @property
    def documents(self) -> int:
        """How many could be measured."""
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


def read_evaluations(file: Path) -> list[Line]:
    """Every line in order; a last one that was cut off does not count.

    Raises `UserError` naming the first line that is not a figure.
    """
    whole, _, _ = file.read_text(encoding="utf-8", errors="replace").rpartition("\n")
    lines = []
    for number, text in enumerate(whole.split("\n"), 1):
        try:
            lines += [_line(json.loads(text))] if text else []
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{file}, line {number}: not a figure of an evaluation "
                f"({type(error).__name__}: {error})"
            ) from error
    return lines


def _line(fields: Mapping[str, Any]) -> Line:
    about = {key: fields[key] for key in ("step", "name", "unit", "mean", "half_width_95", "set")}
    if "values" not in fields:
        return Line(**about)
    values = torch.tensor(fields["values"], dtype=torch.float64)
    # Files of before there were any clusters counted each document by itself.
    clusters = fields.get("clusters", list(range(len(values))))
    if not len(values) == len(fields["weights"]) == len(clusters):
        raise ValueError("values, weights and clusters differ in number")
    return DocumentsLine(
        **about,
        at=fields["at"],
        documents_digest=fields["documents_digest"],
        values=values,
        weights=torch.tensor(fields["weights"], dtype=torch.float64),
        clusters=torch.tensor(clusters),
        share=fields.get("share", False),  # there where it is true
    )
