"""What every recipe file has, whatever it runs, and which options model its `recipe:` names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import Field

from ebft.errors import UserError
from ebft.mistakes import suggest
from ebft.named import find_named
from ebft.parts import Options

if TYPE_CHECKING:
    from ebft.plugins import Registry

RECIPES = {
    "finetune": "ebft.runs.finetune_options:FineTuneOptions",
    "evaluate": "ebft.runs.evaluate_options:EvaluateOptions",
    "study": "ebft.study.options:StudyOptions",
}
"""ebft's own recipes by the names that a file calls them by."""


class Job(Protocol):
    """What a recipe runs: `setup`, then `run`, and `cleanup` whatever happens."""

    def setup(self) -> None: ...

    def run(self) -> bool:
        """Whether all of it was done; False if somebody stopped it."""
        ...

    def cleanup(self) -> None: ...


class RecipeOptions(Options):
    """A recipe file, whole. Like a part, it *is* its options; `build` makes it a job."""

    recipe: str = Field(
        description="what this file runs: finetune, evaluate, study, or `module:Class`"
    )
    output_dir: Path = Field(description="where everything that it writes goes")
    overwrite: bool = Field(False, description="run in an output_dir that holds a run already")
    plugins: tuple[str, ...] = Field(
        (), description="plug-ins to load: module names or paths of .py files"
    )

    several_processes: ClassVar[bool] = False
    """Whether its job divides its work over the processes that torchrun starts."""

    def problems(self) -> list[str]:
        """One line for every mistake that no section can know by itself."""
        return []

    def missing(self) -> list[str]:
        """One line for everything that it names and that is not on this machine, as far as that is
        known without loading anything."""
        return []

    def estimate(self) -> str:
        """What it would cost, for `--dry-run`. Raises `ValueError` saying what cannot be known."""
        raise ValueError(f"recipe {self.recipe} trains nothing")

    def when_memory_is_short(self) -> str:
        """What to set where its job runs out of memory."""
        return "set a smaller model, or smaller batches"

    def build(self, registry: Registry, *, source: Path) -> Job:
        """The job of this recipe; `source` is the file that it was read from."""
        raise NotImplementedError


def recipe_options(name: Any, source: Path, registry: Registry) -> type[RecipeOptions]:
    """The options model that a file's `recipe:` names, in what `registry` may import.

    Raises `UserError` if there is none.
    """
    if not isinstance(name, str) or (name not in RECIPES and ":" not in name):
        known = suggest(str(name), RECIPES)
        raise UserError(f"{source}: recipe = {name}: no such recipe{known} (or `module:Class`)")
    try:
        found = find_named(RECIPES.get(name, name), registry.importable)
    except ValueError as error:
        raise UserError(f"{source}: recipe = {name}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, RecipeOptions)):
        raise UserError(f"{source}: recipe = {name}: is not a subclass of RecipeOptions")
    return found
