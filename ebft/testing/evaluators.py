"""`check_evaluator`: does each document have a value that does not depend on the others?"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ebft.parts.interfaces import Evaluator
from ebft.parts.kinds import EvaluatorPart
from ebft.parts.measurements import CorpusMeasurement, Measurement
from ebft.parts.part import Part, Resources
from ebft.rollout.records import Document
from ebft.testing.common import check_options, close, require
from ebft.testing.tiny import tiny_documents, tiny_resources

Measured = Sequence[Measurement | CorpusMeasurement]


def check_evaluator(
    part: Part,
    resources: Resources | None = None,
    *,
    documents: Sequence[Document] | None = None,
    tolerance: float = 1e-6,
) -> None:
    """Checks an evaluator on raw text and on prompts, or on the given `documents`.

    It checks that values of documents with weight are finite; that figures are the same when called
    again, and for each document by itself; and that the policy is not changed. Raises
    `AssertionError`.
    """
    check_options(part, EvaluatorPart)
    resources = tiny_resources() if resources is None else resources
    policy, vocabulary = resources.policy, resources.policy.config.vocab_size
    if documents is None:
        raw = tiny_documents([19, 3, 16], vocabulary=vocabulary)
        pairs = tiny_documents([14, 9], prompt_length=4, vocabulary=vocabulary)
        documents = [*raw, *(replace(pair, name=f"pair {pair.name}") for pair in pairs)]
    before = copy.deepcopy(policy.state_dict())
    evaluator = part.build(resources)
    require(part, isinstance(evaluator, Evaluator), "build() returns something to call")
    measured = evaluator(policy, documents)
    _check_measurements(part, measured, len(documents))
    require(
        part,
        _same(evaluator(policy, documents), measured, slice(None), tolerance),
        "called again, it gives the same",
    )
    for i, document in enumerate(documents):
        require(
            part,
            _same(evaluator(policy, [document]), measured, slice(i, i + 1), tolerance),
            "a document's figures do not depend on the other documents",
        )
    now = policy.state_dict()
    require(
        part,
        all(torch.equal(now[name], weight) for name, weight in before.items())
        and not policy.training,
        "it does not modify the policy",
    )


def _check_measurements(part: Part, measured: Measured, count: int) -> None:
    require(part, len(measured) > 0, "it measures something")
    names = [one.name for one in measured]
    require(part, len(set(names)) == len(names), f"its figures have different names, not {names}")
    for one in measured:
        values = _values(one)
        require(
            part,
            len(values) == count and tuple(one.weight.shape) == (count,),
            f"{one.name} has a value and a weight for each of {count} documents",
        )
        require(part, bool((one.weight >= 0).all()), f"{one.name}: weights are not negative")
        require(
            part,
            bool(values[one.weight > 0].isfinite().all()),
            f"{one.name}: values that have weight are finite",
        )


def _same(now: Measured, before: Measured, place: slice, tolerance: float) -> bool:
    return len(now) == len(before) and all(
        a.name == b.name
        and torch.equal(a.weight, b.weight[place])
        and close(_values(a)[a.weight > 0], _values(b)[place][a.weight > 0], tolerance)
        for a, b in zip(now, before, strict=True)
    )


def _values(one: Measurement | CorpusMeasurement) -> Tensor:
    return one.value if isinstance(one, Measurement) else one.statistics
