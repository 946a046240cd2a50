"""Evaluations of one run, from before the first step to after the last."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from ebft.checkpoints.digests import digest_documents
from ebft.errors import NumericalError
from ebft.files import write_whole
from ebft.interfaces import Evaluator, Measurement
from ebft.rollout.records import Document
from ebft.scoring.interval import Interval, mean_interval, paired_change

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class History:
    """Measures the same held-out documents again and again and remembers every value.

    Each evaluation is also appended to `file`, one JSON object a line, with the value of every
    document and a digest of the documents, so that runs on the same ones can be paired.
    """

    def __init__(
        self,
        evaluators: Sequence[Evaluator],
        documents: Sequence[Document],
        file: Path,
        *,
        micro_batch: int,
    ) -> None:
        self._evaluators, self._documents, self._file = evaluators, documents, file
        self._micro_batch = micro_batch
        self._digest = digest_documents(documents)
        self._evaluations: dict[int, dict[str, Measurement]] = {}

    def evaluate(self, policy: PreTrainedModel, steps_done: int) -> Mapping[str, float]:
        """The mean of every measurement now. Raises `NumericalError` if one is not finite."""
        measured = self._measure(policy)
        for name, measurement in measured.items():
            bad = (~measurement.value.isfinite()).nonzero()[:, 0].tolist()
            if bad:
                raise NumericalError(
                    f"evaluation after step {steps_done}: {name} is NaN or infinite "
                    f"in document {self._documents[bad[0]].name}"
                )
        self._evaluations[steps_done] = measured
        with self._file.open("a") as file:
            file.write(_lines(steps_done, measured, self._digest))
        return self.means(steps_done)

    def means(self, steps_done: int) -> dict[str, float]:
        """The mean of every measurement after so many steps."""
        measured = self._evaluations[steps_done]
        return {name: mean_interval(measurement).mean for name, measurement in measured.items()}

    def scores(self, name: str) -> dict[int, float]:
        """The mean of one measurement after each number of steps it was made at."""
        return {
            steps_done: mean_interval(measured[name]).mean
            for steps_done, measured in self._evaluations.items()
            if name in measured
        }

    def __contains__(self, steps_done: int) -> bool:
        return steps_done in self._evaluations

    def __len__(self) -> int:
        return len(self._evaluations)

    def state_dict(self) -> dict[str, Any]:
        """Every value, for a checkpoint."""
        return {
            str(steps_done): {name: asdict(m) for name, m in measured.items()}
            for steps_done, measured in self._evaluations.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over the evaluations of a checkpoint, and makes the file say them and no others."""
        self._evaluations = {
            int(steps_done): {name: Measurement(**fields) for name, fields in measured.items()}
            for steps_done, measured in state.items()
        }
        lines = [
            _lines(step, measured, self._digest) for step, measured in self._evaluations.items()
        ]
        write_whole(self._file, "".join(lines))

    def _measure(self, policy: PreTrainedModel) -> dict[str, Measurement]:
        parts = defaultdict(list)
        total = len(self._documents)
        with tqdm(total=total, desc="evaluating", unit="document", leave=False, delay=2) as bar:
            for at in range(0, total, self._micro_batch):
                documents = self._documents[at : at + self._micro_batch]
                for evaluator in self._evaluators:
                    for measurement in evaluator(policy, documents):
                        parts[measurement.name].append(measurement)
                bar.update(len(documents))
        return {
            name: replace(
                measurements[0],
                value=torch.cat([measurement.value for measurement in measurements]),
                weight=torch.cat([measurement.weight for measurement in measurements]),
            )
            for name, measurements in parts.items()
        }

    @property
    def first(self) -> Mapping[str, Measurement]:
        return self._evaluations[min(self._evaluations)]

    @property
    def last(self) -> Mapping[str, Measurement]:
        return self._evaluations[max(self._evaluations)]

    def changes(self, name: str) -> Iterator[tuple[int, Interval]]:
        """Steps done and the measurement's change since the first evaluation, in order."""
        for steps_done, measured in sorted(self._evaluations.items()):
            yield steps_done, paired_change(self.first[name], measured[name])


def _lines(steps_done: int, measured: Mapping[str, Measurement], digest: str) -> str:
    """A JSON object a line, one for each measurement."""
    lines = []
    for name, measurement in measured.items():
        interval = mean_interval(measurement)
        line = {
            "step": steps_done,
            "name": name,
            "unit": measurement.unit,
            "mean": interval.mean,
            "half_width_95": interval.half_width,
            "documents": interval.count,
            "at": measurement.at,
            "documents_digest": digest,
            "values": measurement.value.tolist(),
            "weights": measurement.weight.tolist(),
        }
        lines.append(json.dumps(line) + "\n")
    return "".join(lines)
