"""`recipe:` → the class that runs it."""

from __future__ import annotations

from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Protocol, cast

from ebft.errors import UserError

if TYPE_CHECKING:
    from ebft.plugins import Registry
    from ebft.training.options import FineTuneOptions

RECIPES = {"finetune": "ebft.training.finetune:FineTune"}
"""ebft's own recipe classes by the names that a recipe calls them by."""


class RecipeClass(Protocol):
    """How the command line runs a recipe: construct, `setup`, `train`, `cleanup` always."""

    def __init__(self, options: FineTuneOptions, registry: Registry, *, source: Path) -> None: ...

    def setup(self) -> None: ...

    def train(self) -> bool:
        """Whether all steps were run; False if somebody stopped it."""
        ...

    def cleanup(self) -> None: ...


def find_recipe_class(name: str) -> type[RecipeClass]:
    """The class that `recipe:` names. Raises `UserError` if there is none."""
    try:
        found = resolve_name(RECIPES.get(name, name))
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"recipe = {name}: cannot be imported: {error}") from error
    return cast(type[RecipeClass], found)
