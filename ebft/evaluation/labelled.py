"""Labels that distinguish two evaluators of one kind, such as the loss under two feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field

from ebft.parts.interfaces import Evaluator, check_call
from ebft.parts.kinds import EvaluatorPart
from ebft.parts.measurements import CorpusMeasurement, Measurement
from ebft.parts.part import Part, Resources
from ebft.rollout.records import Document

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LabelledPart(EvaluatorPart):
    """An evaluator's options, with a label for its figures."""

    label: str = Field(
        "", description="appended to its figures' names, as in CFM (label); for two of a kind"
    )


class LabelledEvaluator:
    """An evaluator that appends a label to the names of its figures."""

    def __init__(self, evaluator: Evaluator, label: str) -> None:
        self._evaluator, self._label = evaluator, label

    def __call__(
        self, policy: PreTrainedModel, documents: Sequence[Document]
    ) -> Sequence[Measurement | CorpusMeasurement]:
        return [
            replace(measurement, name=f"{measurement.name} ({self._label})")
            for measurement in self._evaluator(policy, documents)
        ]


def build_evaluator(part: Part, resources: Resources) -> Evaluator:
    """Builds the evaluator of a part, with its label if it has one."""
    evaluator: Evaluator = check_call("evaluators", part.build(resources), Evaluator)
    if isinstance(part, LabelledPart) and part.label:
        return LabelledEvaluator(evaluator, part.label)
    return evaluator
