"""The schema of a study file (`recipe: study`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    model_validator,
)  # fmt: skip

from ebft.config.recipe import RecipeOptions
from ebft.errors import Mistake, validation_error
from ebft.options import Options
from ebft.runs.options import FineTuneOptions


def _beside_the_file(value: Any, info: ValidationInfo) -> Any:
    source = (info.context or {}).get("source")
    if not isinstance(value, str) or source is None:
        return value
    return Path(os.path.normpath(source.parent / os.path.expanduser(value)))


BaseRecipe = Annotated[Path, BeforeValidator(_beside_the_file)]
"""A recipe file; a relative path is relative to the study file."""


def _dotted(value: Any) -> Any:
    """Flattens sections into dotted keys; later keys replace earlier ones.

    `overrides.training.steps=5` on the command line arrives as a section. It must replace the
    file's `training.steps`, but not the whole section of the recipe. Components and lists are
    values and are not flattened.
    """
    if not isinstance(value, dict):
        return value
    flat: dict[Any, Any] = {}
    for key, item in value.items():
        is_section = isinstance(item, dict) and item and "_component_" not in item
        leaves = {f"{key}.{k}": v for k, v in _dotted(item).items()} if is_section else {key: item}
        for dotted, leaf in leaves.items():
            flat.pop(dotted, None)  # so that a replaced key moves to the end
            flat[dotted] = leaf
    return flat


Overrides = Annotated[dict[str, Any], BeforeValidator(_dotted)]
"""Dotted keys and their values, as on the command line: `sampler.n: 8`; `~key` deletes."""
Levels = list[Any] | dict[str, Any]
"""Values of a key: a list, or labels with values (which may be whole sections)."""


class VariantOptions(Options):
    """A named variant: a base recipe and overrides."""

    base_recipe: BaseRecipe | None = Field(None, description="its recipe; null: the study's")
    overrides: Overrides = Field(
        {}, description="dotted keys and values, applied after those of the study"
    )
    starts_from: str | None = Field(
        None,
        description="an earlier variant: its run with the same seed is trained first, and this one "
        "starts from its last checkpoint, with features of the model that it began with",
    )


class BudgetOptions(Options):
    """Limits of a run, and of the whole study."""

    steps: PositiveInt | None = Field(
        None, description="optimizer steps of every run; null: those of its recipe"
    )
    tflop_per_run: PositiveFloat | None = Field(
        None,
        description="every run trains for as many steps as this many TFLOP allow by the cost "
        "model, not counting evaluations; with `steps`, for the smaller number of the two",
    )
    minutes_per_run: PositiveFloat | None = Field(
        None, description="a run that takes longer is stopped and counts as failed"
    )
    tflop: PositiveFloat | None = Field(
        None, description="a study whose runs together are estimated to take more is refused"
    )
    minutes: PositiveFloat | None = Field(
        None,
        description="limit of one call: a run is not started if it is expected to end later, "
        "judging by completed runs; run the same command again for the remaining runs",
    )


class StudyOptions(RecipeOptions):
    """Many runs and their comparison.

    The runs are every variant × (the grid's combinations, and each value of `one_at_a_time` by
    itself) × every seed. Runs with the same resolved recipe are run once.
    """

    base_recipe: BaseRecipe | None = Field(
        None, description="the recipe of all runs; null: each variant names its own"
    )
    overrides: Overrides = Field({}, description="dotted keys and values, for all runs")
    variants: dict[str, VariantOptions] = Field(
        {}, description="named variants, each with overrides and optionally its own recipe"
    )
    grid: dict[str, Levels] = Field({}, description="dotted key → values; all combinations are run")
    one_at_a_time: dict[str, Levels] = Field(
        {},
        description="dotted key → values; each value is run with all other keys as in the base "
        "recipe, which is also run once",
    )
    evaluation: dict[str, Any] | None = Field(
        None,
        description="the section `evaluation` of every run, which replaces that of its recipe and "
        "overrides, so that all runs are measured alike; null: each recipe's own",
    )
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (0,), min_length=1, description="seeds that every arm is run with"
    )
    reference: str | None = Field(
        None, description="label of the arm that others are compared with; null: the first"
    )
    reported: dict[str, dict[str, float]] = Field(
        {},
        description="figures that others report: measurement → arm → value, which the report "
        "shows beside the study's own; the arm `base` is the model before training",
    )
    note: str = Field(
        "", description="a sentence at the top of the report, such as what its figures do not show"
    )
    budget: BudgetOptions = BudgetOptions()
    processes: PositiveInt = Field(
        1,
        description="processes on this machine that torchrun starts for each run, for example one "
        "for each GPU; 1: each run is one process",
    )
    keep_checkpoints: bool = Field(
        False, description="keep the checkpoints of completed runs; each is as large as a model"
    )
    retry_failed: bool = Field(False, description="repeat failed runs")

    @model_validator(mode="before")
    @classmethod
    def _sections_of_runs_are_overrides(cls, data: Any) -> Any:
        given = data.keys() - cls.model_fields.keys() if isinstance(data, dict) else set()
        mistakes = [
            Mistake(
                (name,),
                data[name],
                f"a section of the runs; set overrides.{name}.KEY=… for all of them, or "
                f"'one_at_a_time={{{name}.KEY: [VALUE, VALUE]}}' to compare values",
            )
            for name in sorted(given & FineTuneOptions.model_fields.keys())
            if isinstance(data[name], dict)
        ]
        if mistakes:
            raise validation_error(cls.__name__, mistakes)
        return data
