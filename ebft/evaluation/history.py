"""Evaluations of one run, from before the first step to after the last."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from ebft.errors import NumericalError
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
        self._digest = documents_digest(documents)
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
        intervals = {name: mean_interval(measurement) for name, measurement in measured.items()}
        with self._file.open("a") as file:
            for name, interval in intervals.items():
                line = {"step": steps_done, "name": name, "unit": measured[name].unit}
                numbers = {"mean": interval.mean, "half_width_95": interval.half_width}
                each = {
                    "documents": interval.count,
                    "at": measured[name].at,
                    "documents_digest": self._digest,
                    "values": measured[name].value.tolist(),
                    "weights": measured[name].weight.tolist(),
                }
                file.write(json.dumps(line | numbers | each) + "\n")
        return {name: interval.mean for name, interval in intervals.items()}

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


def documents_digest(documents: Sequence[Document]) -> str:
    """A short hash of documents and their order: equal for the same ones."""
    digest = blake2b(digest_size=8)
    for document in documents:
        digest.update(document.name.encode() + b"\0")
        digest.update(document.tokens.cpu().numpy().tobytes())
    return digest.hexdigest()
