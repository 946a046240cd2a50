"""What recipes about a model and documents share, and the schema of `recipe: evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt

from ebft.config.recipe import Job, RecipeOptions
from ebft.data.documents import DocumentOptions
from ebft.models.options import ModelOptions
from ebft.parts import Options, Part, part_of

if TYPE_CHECKING:
    from ebft.plugins import Registry


class EvaluationOptions(Options):
    """What is measured on held-out documents, and how often in a run that trains."""

    documents: PositiveInt = Field(32, description="held-out documents; the same ones every time")
    every: PositiveInt | None = Field(
        None, description="optimizer steps between evaluations; null: only before and after"
    )
    evaluators: tuple[Annotated[Part, part_of("evaluators")], ...] = Field(
        (), description="what is measured, each a `_component_` with its options; none: nothing"
    )


class ModelAndDataOptions(RecipeOptions):
    """A recipe about one model and the documents of one data source."""

    seed: int = Field(0, ge=0, description="seed of data order and rollouts")
    model: ModelOptions
    data: Annotated[Part, part_of("data")]
    documents: DocumentOptions
    plan: Annotated[Part, part_of("plans")] = Field(
        description="anchors of the documents; also which documents are accepted, so that methods "
        "with and without rollouts train on the same ones"
    )
    evaluation: EvaluationOptions = EvaluationOptions()

    @property
    def documents_at_a_time(self) -> int:
        """Documents put through a network at a time."""
        raise NotImplementedError

    def parts(self) -> dict[str, Part]:
        """The parts that there are by their key path, for checks that concern them all."""
        return {"data": self.data, "plan": self.plan}


class EvaluateOptions(ModelAndDataOptions):
    """Measures a model without training it: `recipe: evaluate`."""

    micro_batch: PositiveInt = Field(
        4, description="documents put through a network at a time; changes memory, not results"
    )

    @property
    def documents_at_a_time(self) -> int:
        return self.micro_batch

    def problems(self) -> list[str]:
        if not self.evaluation.evaluators:
            return ["evaluation.evaluators: is empty, so there is nothing to do"]
        return []

    def build(self, registry: Registry, *, source: Path) -> Job:
        from ebft.evaluation.evaluate import Evaluate

        return Evaluate(self, registry, source=source)
