"""What is measured on held-out documents and on benchmarks, as a recipe says it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveInt, model_validator

from ebft.options import Options
from ebft.parts.kinds import EvaluatorPart, FeatureMapPart
from ebft.parts.part import Part, part_of

Evaluators = tuple[Annotated[EvaluatorPart, part_of("evaluators")], ...]
HELD_OUT = ("held-out", "out-of-distribution")
"""Names of the sets that a recipe's own data source gives; the second is for those that have it."""


class SetOptions(Options):
    """Documents of another source than the recipe's, with evaluators of their own: a benchmark."""

    name: str = Field(description="stands before every figure: `HumanEval pass@1`")
    data: Annotated[Part, part_of("data")] = Field(
        description="where its texts are from; what this holds out is measured"
    )
    length: int = Field(
        2048, ge=2, description="most tokens of a prompt with its completion; longer are dropped"
    )
    documents: PositiveInt | None = Field(None, description="how many of them; null: all")
    evaluators: Evaluators = Field(min_length=1, description="what is measured")


class EvaluationOptions(Options):
    """What is measured on held-out documents."""

    documents: PositiveInt = Field(32, description="held-out documents; the same ones every time")
    evaluators: Evaluators = Field(
        (), description="what is measured, each a `_component_` with its options; none: nothing"
    )
    sets: tuple[SetOptions, ...] = Field((), description="benchmarks that are measured as well")

    @model_validator(mode="after")
    def _names_are_different(self) -> EvaluationOptions:
        names = [*HELD_OUT, *(one.name for one in self.sets)]
        if len(set(names)) < len(names):
            raise ValueError(f"sets: two have the same name, or one of {', '.join(HELD_OUT)}")
        return self

    def parts(self) -> dict[str, Part]:
        """The evaluators by their key path."""
        named: dict[str, Part] = {
            f"evaluation.evaluators.{i}": part for i, part in enumerate(self.evaluators)
        }
        for number, one in enumerate(self.sets):
            key = f"evaluation.sets.{number}.evaluators"
            named |= {f"{key}.{i}": part for i, part in enumerate(one.evaluators)}
        return named

    def feature_maps(self) -> list[FeatureMapPart]:
        """The feature maps of all evaluators."""
        evaluators = [*self.evaluators, *(it for one in self.sets for it in one.evaluators)]
        return [feature_map for part in evaluators for feature_map in part.feature_maps()]

    def anything(self) -> bool:
        """Whether anything is measured at all."""
        return bool(self.evaluators or self.sets)


class RunEvaluationOptions(EvaluationOptions):
    """What is measured on held-out documents, and when in a run that trains."""

    every: PositiveInt | None = Field(
        None, description="optimizer steps between evaluations; null: only before and after"
    )
    remember: Path | None = Field(
        None,
        description="a folder that keeps what is measured before the first step for other runs, so "
        "that those with the same model, documents, evaluators and seed do it once (in one process "
        "alone); null: each run does it",
    )
