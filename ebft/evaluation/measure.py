"""One evaluation of a policy: every figure of every set, over the documents of all processes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from ebft.console import Bar
from ebft.distributed.processes import ONE_PROCESS, Processes
from ebft.errors import NumericalError, UserError
from ebft.parts.interfaces import Evaluator
from ebft.parts.measurements import CorpusMeasurement, Measurement
from ebft.rollout.micro_batches import MicroBatch
from ebft.rollout.records import Document
from ebft.scoring.estimators import influence_values

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """Documents with their evaluators; `name` is put before every figure: "held-out CE"."""

    name: str
    documents: Sequence[Document]
    evaluators: Sequence[Evaluator]


def measure(
    policy: PreTrainedModel,
    sets: Sequence[EvaluationSet],
    *,
    micro_batch: MicroBatch,
    processes: Processes = ONE_PROCESS,
    steps_done: int,
) -> dict[str, Measurement]:
    """Returns every measurement of the sets, by its name; `steps_done` is for messages.

    The documents are divided over the processes, and each process returns all the values. Raises
    `NumericalError` if a value that has weight is not finite, and `UserError` if two evaluators
    have figures of the same name, or if no document can be measured for a figure.
    """
    measured: dict[str, Measurement] = {}
    for one in sets:
        numbers = clusters(one.documents)
        for found in _measure_set(policy, one, micro_batch, processes):
            name = f"{one.name} {found.name}"
            assert name not in measured, f"{name} is measured twice"
            _check(name, found, one, steps_done)
            # Values without weight may be NaN, which JSON does not have.
            value = found.value.where(found.weight != 0, 0)
            measured[name] = replace(found, name=name, of=one.name, value=value, clusters=numbers)
    return measured


def _measure_set(
    policy: PreTrainedModel, one: EvaluationSet, micro_batch: MicroBatch, processes: Processes
) -> Iterator[Measurement]:
    parts: defaultdict[str, list[Measurement | CorpusMeasurement]] = defaultdict(list)
    measured_by: dict[str, Evaluator] = {}
    mine = _share(one.documents, processes)
    total = len(mine)
    with Bar(
        total=total,
        desc=f"evaluating {one.name}",
        unit="document",
        leave=False,
        delay=2,
        disable=None,
    ) as bar:
        at_a_time = micro_batch.documents
        for at in range(0, total, at_a_time):
            documents = mine[at : at + at_a_time]
            for evaluator in one.evaluators:
                for measurement in evaluator(policy, documents):
                    name = measurement.name
                    if measured_by.setdefault(name, evaluator) is not evaluator:
                        raise UserError(
                            f"evaluation.evaluators: two of them measure {name}; give one a "
                            "label, which is appended to the name"
                        )
                    parts[name].append(measurement)
            bar.update(len(documents))
    for measurements in parts.values():
        yield joined(measurements, partial(_together, processes, count=len(one.documents)))


def _share(documents: Sequence[Document], processes: Processes) -> Sequence[Document]:
    """Returns this process's documents. All processes get as many; the last one is repeated."""
    rank, size = processes.rank, processes.size
    last, count = len(documents) - 1, -(-len(documents) // size)
    return [documents[min(i, last)] for i in range(rank * count, (rank + 1) * count)]


def _together(processes: Processes, values: list[Tensor], count: int) -> Tensor:
    """Gathers the values of all processes, for the `count` documents without repetitions."""
    return processes.gather(torch.cat(values))[:count]


def _check(name: str, measurement: Measurement, one: EvaluationSet, steps_done: int) -> None:
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
            "strided plan documents that are long enough), or a slope needs rollouts of two tokens"
        )


def joined(
    parts: Sequence[Measurement | CorpusMeasurement],
    together: Callable[[list[Tensor]], Tensor],
) -> Measurement:
    """Joins the batches of a measurement in order; `together` gathers the values of processes."""
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
    """Returns the cluster of each document, numbered in the order of first occurrence.

    Documents with the same prompt are held out together, so they are one cluster, unless all
    documents have the same prompt, such as an instruction.
    """
    prompts = [tuple(it.tokens[: it.prompt_length].tolist()) for it in documents]
    told_apart = len(set(prompts)) > 1
    names = [
        it.cluster or (prompt if prompt and told_apart else it.name)
        for it, prompt in zip(documents, prompts, strict=True)
    ]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([numbers[name] for name in names])
