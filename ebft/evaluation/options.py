"""The `evaluation:` section of a recipe: held-out documents and benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveInt, model_validator

from ebft.options import Options
from ebft.parts.kinds import EvaluatorPart, FeatureMapPart
from ebft.parts.part import Part, part_of

Evaluators = tuple[Annotated[EvaluatorPart, part_of("evaluators")], ...]
HELD_OUT = ("held-out", "out-of-distribution")
"""Names of the sets from a recipe's own data source; only some sources have the second."""


class SetOptions(Options):
    """A benchmark: documents of another data source, with their own evaluators."""

    name: str = Field(description="put before every figure: `HumanEval pass@1`")
    data: Annotated[Part, part_of("data")] = Field(
        description="data source, whose held-out texts are measured"
    )
    length: int = Field(
        2048, ge=2, description="largest number of tokens of a prompt with its completion; longer "
        "ones are dropped"
    )  # fmt: skip
    documents: PositiveInt | None = Field(None, description="number of documents; null: all")
    evaluators: Evaluators = Field(min_length=1, description="its evaluators")


class EvaluationOptions(Options):
    """Evaluators of held-out documents."""

    documents: PositiveInt = Field(32, description="held-out documents; the same every time")
    evaluators: Evaluators = Field(
        (), description="evaluators, each a `_component_` with its options"
    )
    sets: tuple[SetOptions, ...] = Field((), description="benchmarks that are also measured")

    @model_validator(mode="after")
    def _names_are_different(self) -> EvaluationOptions:
        names = [*HELD_OUT, *(one.name for one in self.sets)]
        if len(set(names)) < len(names):
            raise ValueError(f"sets: two have the same name, or one of {', '.join(HELD_OUT)}")
        return self

    def parts(self) -> dict[str, Part]:
        """Returns the evaluators by their key path."""
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
        """Whether anything is measured."""
        return bool(self.evaluators or self.sets)


class RunEvaluationOptions(EvaluationOptions):
    """Evaluators of held-out documents, and when a training run measures them."""

    every: PositiveInt | None = Field(
        None, description="optimizer steps between evaluations; null: only before and after"
    )
    remember: Path | None = Field(
        None,
        description="a folder that keeps the evaluation before the first step, so that runs with "
        "the same model, documents, evaluators and seed measure it once; null: each run "
        "measures it",
    )
