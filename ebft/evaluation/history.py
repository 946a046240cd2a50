"""Evaluations of one policy: once, or from before the first step to after the last."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm import tqdm

from ebft.digests import digest_documents
from ebft.errors import NumericalError, UserError
from ebft.evaluation.remembered import Remembered
from ebft.files import write_whole
from ebft.interfaces import CorpusMeasurement, Evaluator, Measurement
from ebft.processes import ONE_PROCESS, Processes
from ebft.rollout.micro_batches import MicroBatch
from ebft.rollout.records import Document
from ebft.scoring.corpus import influence_values
from ebft.scoring.interval import Interval, mean_interval, paired_change

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """Documents and what is measured on them; `name` stands before every figure: "held-out CE"."""

    name: str
    documents: Sequence[Document]
    evaluators: Sequence[Evaluator]


class History:
    """Measures the same documents again and again and remembers every value.

    The documents are divided over the processes, and each process has all the values. Each
    evaluation is also appended to `file`, one JSON object a line, with the value of every document
    and a digest of the documents, so that runs on the same ones can be paired.
    """

    def __init__(
        self,
        sets: Sequence[EvaluationSet],
        file: Path,
        *,
        micro_batch: MicroBatch,
        processes: Processes = ONE_PROCESS,
    ) -> None:
        self._sets, self._file, self._micro_batch = sets, file, micro_batch
        self._processes = processes
        self._digests = {one.name: digest_documents(one.documents) for one in sets}
        self._clusters = {one.name: clusters(one.documents) for one in sets}
        self._evaluations: dict[int, dict[str, Measurement]] = {}

    def evaluate(
        self, policy: PreTrainedModel, steps_done: int, *, remembered: Remembered | None = None
    ) -> Mapping[str, float]:
        """The mean of every measurement now, or of those `remembered` (in one process only).

        Raises `NumericalError` if a value that has weight is not finite, and `UserError` if a
        figure has no document that it can be measured on.
        """
        measured = None if remembered is None else remembered.recall()
        if measured is None:
            measured = self._measure_all(policy, steps_done)
            if remembered is not None:
                remembered.keep(measured)
        self._evaluations[steps_done] = measured
        if self._processes.is_main:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(_lines(steps_done, measured, self._digests))
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
            int(steps_done): {
                name: Measurement(**{**fields, "clusters": self._clusters[fields["of"]]})
                for name, fields in measured.items()
            }
            for steps_done, measured in state.items()
        }
        lines = [
            _lines(step, measured, self._digests) for step, measured in self._evaluations.items()
        ]
        if self._processes.is_main:
            write_whole(self._file, "".join(lines))

    def _measure_all(self, policy: PreTrainedModel, steps_done: int) -> dict[str, Measurement]:
        measured: dict[str, Measurement] = {}
        for one in self._sets:
            for measurement in self._measure(policy, one):
                name = f"{one.name} {measurement.name}"
                assert name not in measured, f"{name} is measured twice"
                self._check(name, measurement, one, steps_done)
                # What counts for nothing may be anything, and the file's JSON has no NaN.
                value = measurement.value.where(measurement.weight != 0, 0)
                measured[name] = replace(
                    measurement, name=name, of=one.name, value=value,
                    clusters=self._clusters[one.name],
                )  # fmt: skip
        return measured

    def _measure(self, policy: PreTrainedModel, one: EvaluationSet) -> Iterator[Measurement]:
        parts: defaultdict[str, list[Measurement | CorpusMeasurement]] = defaultdict(list)
        measured_by: dict[str, Evaluator] = {}
        mine = self._share(one.documents)
        total = len(mine)
        with tqdm(
            total=total,
            desc=f"evaluating {one.name}",
            unit="document",
            leave=False,
            delay=2,
            disable=None,
        ) as bar:
            at_a_time = self._micro_batch.documents
            for at in range(0, total, at_a_time):
                documents = mine[at : at + at_a_time]
                for evaluator in one.evaluators:
                    for measurement in evaluator(policy, documents):
                        name = measurement.name
                        if measured_by.setdefault(name, evaluator) is not evaluator:
                            raise UserError(
                                f"evaluation.evaluators: two of them measure {name}; give one a "
                                "label, which then stands behind the name"
                            )
                        parts[name].append(measurement)
                bar.update(len(documents))
        for measurements in parts.values():
            yield joined(measurements, partial(self._together, count=len(one.documents)))

    def _share(self, documents: Sequence[Document]) -> Sequence[Document]:
        """As many for every process: the last one again where there are too few."""
        rank, size = self._processes.rank, self._processes.size
        last, count = len(documents) - 1, -(-len(documents) // size)
        return [documents[min(i, last)] for i in range(rank * count, (rank + 1) * count)]

    def _together(self, values: list[Tensor], count: int) -> Tensor:
        """Those of all processes, of `count` documents."""
        return self._processes.gather(torch.cat(values))[:count]

    def _check(
        self, name: str, measurement: Measurement, one: EvaluationSet, steps_done: int
    ) -> None:
        value, weight = measurement.value, measurement.weight
        finite = weight.isfinite() & (value.isfinite() | (weight == 0))
        if bad := (~finite).nonzero()[:, 0].tolist():
            raise NumericalError(
                f"evaluation after step {steps_done}: {name} is NaN or infinite "
                f"in document {one.documents[bad[0]].name}"
            )
        if not measurement.weight.any():
            raise UserError(
                f"evaluation: {name}: none of the {len(one.documents)} documents can be measured; "
                "its plan accepts none of them (a completion needs documents with a prompt, a "
                "strided plan documents that are long enough), or a slope has rollouts of one token"
            )

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


def joined(
    parts: Sequence[Measurement | CorpusMeasurement],
    together: Callable[[list[Tensor]], Tensor],
) -> Measurement:
    """One measurement of all the documents of its parts, in their order, put `together`."""
    first, weight = parts[0], together([part.weight for part in parts])
    if isinstance(first, Measurement):
        values = [part.value for part in parts if isinstance(part, Measurement)]
        return replace(first, value=together(values), weight=weight)
    statistics = [part.statistics for part in parts if isinstance(part, CorpusMeasurement)]
    whole, measured = together(statistics), weight > 0
    value = torch.zeros_like(weight)
    if measured.any():
        value[measured] = influence_values(whole[measured], first.figure)
    return Measurement(first.name, first.unit, value, weight)


def clusters(documents: Sequence[Document]) -> Int[Tensor, " B"]:
    """What each document is a part of, numbered in the order in which they come.

    Documents with the same prompt are held out together too; unless all have it, as an instruction.
    """
    prompts = [tuple(it.tokens[: it.prompt_length].tolist()) for it in documents]
    told_apart = len(set(prompts)) > 1
    names = [
        it.cluster or (prompt if prompt and told_apart else it.name)
        for it, prompt in zip(documents, prompts, strict=True)
    ]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([numbers[name] for name in names])


def _lines(steps_done: int, measured: Mapping[str, Measurement], digests: Mapping[str, str]) -> str:
    """A JSON object a line, one for each measurement."""
    lines = []
    for name, measurement in measured.items():
        interval = mean_interval(measurement)
        assert measurement.clusters is not None, name
        line = {
            "step": steps_done,
            "name": name,
            "unit": measurement.unit,
            "mean": interval.mean,
            "half_width_95": interval.half_width,
            "documents": int((measurement.weight > 0).sum()),
            "set": measurement.of,
            "at": measurement.at,
            "documents_digest": digests[measurement.of],
            "values": measurement.value.tolist(),
            "weights": measurement.weight.tolist(),
            "clusters": measurement.clusters.tolist(),
        }
        lines.append(json.dumps(line) + "\n")
    return "".join(lines)
