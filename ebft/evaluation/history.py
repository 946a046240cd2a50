"""Evaluations of one run, from before the first step to after the last."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ebft.errors import NumericalError
from ebft.interfaces import Evaluator, Measurement
from ebft.rollout.records import Document
from ebft.scoring.interval import Interval, mean_interval

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class History:
    """Measures the same held-out documents again and again and remembers every value.

    Each evaluation is also appended to `file`, one JSON object a line.
    """

    def __init__(
        self, evaluators: Sequence[Evaluator], documents: Sequence[Document], file: Path
    ) -> None:
        self._evaluators, self._documents, self._file = evaluators, documents, file
        self._evaluations: dict[int, dict[str, Measurement]] = {}

    def evaluate(self, policy: PreTrainedModel, steps_done: int) -> Mapping[str, float]:
        """The mean of every measurement now. Raises `NumericalError` if one is not finite."""
        measured = {
            measurement.name: measurement
            for evaluator in self._evaluators
            for measurement in evaluator(policy, self._documents)
        }
        for name, measurement in measured.items():
            bad = (~measurement.value.isfinite()).nonzero()[:, 0].tolist()
            if bad:
                raise NumericalError(
                    f"evaluation after step {steps_done}: {name} is NaN or infinite "
                    f"in document {self._documents[bad[0]].name}"
                )
        self._evaluations[steps_done] = measured
        intervals = {name: mean_interval(measurement) for name, measurement in measured.items()}
        with self._file.open("a") as file:
            for name, interval in intervals.items():
                line = {"step": steps_done, "name": name, "unit": measured[name].unit}
                numbers = {"mean": interval.mean, "half_width_95": interval.half_width}
                file.write(json.dumps(line | numbers | {"documents": interval.count}) + "\n")
        return {name: interval.mean for name, interval in intervals.items()}

    @property
    def first(self) -> Mapping[str, Measurement]:
        return self._evaluations[min(self._evaluations)]

    @property
    def last(self) -> Mapping[str, Measurement]:
        return self._evaluations[max(self._evaluations)]

    def curve(self, name: str) -> Iterator[tuple[int, Interval]]:
        """Steps done and the measurement's interval then, in order."""
        for steps_done, measured in sorted(self._evaluations.items()):
            yield steps_done, mean_interval(measured[name])
