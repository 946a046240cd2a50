"""The job that a recipe file runs, with its options."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from pydantic import Field

from ebft.errors import UserError, suggest
from ebft.options import Options
from ebft.parts.named import find_named

if TYPE_CHECKING:
    from ebft.parts.registry import Registry

JOBS = {
    "finetune": "ebft.runs.jobs:FineTune",
    "evaluate": "ebft.runs.jobs:Evaluate",
    "study": "ebft.study.job:Study",
}
"""ebft's own jobs, by their name in `recipe:`."""


class RecipeOptions(Options):
    """The options of a recipe file. Each kind of recipe adds its sections."""

    recipe: str = Field(
        description="what this file runs: finetune, evaluate, study, or `module:Class`"
    )
    output_dir: Path = Field(description="folder for everything that it writes")
    overwrite: bool = Field(False, description="allow an output_dir that already has a run")
    plugins: tuple[str, ...] = Field(
        (), description="plug-ins to load: module names or paths of .py files"
    )


O = TypeVar("O", bound=RecipeOptions)  # noqa: E741 - the options of a job


class Job(ABC, Generic[O]):
    """A kind of recipe: its options, and what it does with them.

    Creating a job loads nothing. `source` is the recipe file, for messages.
    """

    schema: ClassVar[type[RecipeOptions]]
    """The model of its options."""
    several_processes: ClassVar[bool] = False
    """Whether it divides its work over torchrun's processes."""

    def __init__(self, options: O, registry: Registry, *, source: Path) -> None:
        self.options, self.registry, self.source = options, registry, source

    def problems(self) -> list[str]:
        """Returns one line for each mistake that involves several sections."""
        return []

    def missing(self) -> list[str]:
        """Returns one line for each requirement that this machine lacks, as far as known without
        loading anything."""
        return []

    def estimate(self) -> str:
        """Returns the estimated cost, for `--dry-run`. Raises `ValueError` if it is unknown."""
        raise ValueError(f"recipe {self.options.recipe} trains nothing")

    def advice(self) -> str:
        """Returns which option to set if the job runs out of memory."""
        return "set a smaller model, or smaller batches"

    @abstractmethod
    def run(self) -> bool:
        """Runs the job. Returns True if it is complete, False if the user stopped it.

        Raises `UserError` for a model, data or an output folder that cannot be used.
        """


def find_job(name: Any, source: Path, registry: Registry) -> type[Job[Any]]:
    """Returns the job that `recipe:` names; dotted paths must be importable by `registry`.

    Raises `UserError` if there is none.
    """
    if not isinstance(name, str) or (name not in JOBS and ":" not in name):
        known = suggest(str(name), JOBS)
        raise UserError(f"{source}: recipe = {name}: no such recipe{known} (or `module:Class`)")
    try:
        found = find_named(JOBS.get(name, name), registry.importable)
    except ValueError as error:
        raise UserError(f"{source}: recipe = {name}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Job)):
        raise UserError(f"{source}: recipe = {name}: is not a subclass of ebft.Job")
    return found
