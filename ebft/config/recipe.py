"""What a recipe file runs: a job, with the options that the file may give it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from pydantic import Field

from ebft.errors import UserError
from ebft.mistakes import suggest
from ebft.options import Options
from ebft.parts.named import find_named

if TYPE_CHECKING:
    from ebft.parts.registry import Registry

JOBS = {
    "finetune": "ebft.runs.jobs:FineTune",
    "evaluate": "ebft.runs.jobs:Evaluate",
    "study": "ebft.study.job:Study",
}
"""ebft's own jobs, by the names that a file's `recipe:` calls them by."""


class RecipeOptions(Options):
    """The options of a recipe file. Each kind of recipe adds its sections."""

    recipe: str = Field(
        description="what this file runs: finetune, evaluate, study, or `module:Class`"
    )
    output_dir: Path = Field(description="where everything that it writes goes")
    overwrite: bool = Field(False, description="run in an output_dir that holds a run already")
    plugins: tuple[str, ...] = Field(
        (), description="plug-ins to load: module names or paths of .py files"
    )


O = TypeVar("O", bound=RecipeOptions)  # noqa: E741 - the options of a job


class Job(ABC, Generic[O]):
    """A kind of recipe: the options that its file may give, and what is done with them.

    Making a job loads nothing. `source` is the recipe file, for messages.
    """

    schema: ClassVar[type[RecipeOptions]]
    """The options model of its file."""
    several_processes: ClassVar[bool] = False
    """Whether it divides its work over the processes that torchrun starts."""

    def __init__(self, options: O, registry: Registry, *, source: Path) -> None:
        self.options, self.registry, self.source = options, registry, source

    def problems(self) -> list[str]:
        """One line for every mistake that no section can know by itself."""
        return []

    def missing(self) -> list[str]:
        """One line for everything that the recipe names and this machine does not have, as far as
        that is known without loading anything."""
        return []

    def estimate(self) -> str:
        """What the job would cost, for `--dry-run`. Raises `ValueError` if that is unknown."""
        raise ValueError(f"recipe {self.options.recipe} trains nothing")

    def advice(self) -> str:
        """What to set if the job runs out of memory."""
        return "set a smaller model, or smaller batches"

    @abstractmethod
    def run(self) -> bool:
        """Runs the job. True if it is complete, False if the user stopped it.

        Raises `UserError` for a model, data or an output folder that cannot be used.
        """


def find_job(name: Any, source: Path, registry: Registry) -> type[Job[Any]]:
    """The job that a file's `recipe:` names, in what `registry` may import.

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
