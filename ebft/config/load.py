"""Recipe file + overrides → validated options, with the registry that they were validated by.

torchtune's own parser is not used: `torchtune.config._parse` demands a `--config` flag, the
function in it that merges overrides is private and raises what argparse prints as a traceback,
and importing it takes seconds before the first mistake in a recipe can be reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from ebft.config.errors import explain
from ebft.config.located import suggest
from ebft.config.overrides import Override, apply_overrides, parse_override
from ebft.config.recipe import RecipeOptions, recipe_options
from ebft.config.shipped import shipped_recipes
from ebft.errors import UserError
from ebft.plugins import Registry, find_plugin, load_registry


@dataclass(frozen=True, slots=True)
class Recipe:
    """A validated recipe. `resolved` is what was validated: no interpolations, no defaults."""

    source: Path
    resolved: dict[str, Any]
    options: RecipeOptions
    registry: Registry


def load_recipe(path: Path, overrides: Sequence[str | Override] = ()) -> Recipe:
    """Reads, overrides, resolves and validates a recipe.

    Raises `UserError` with one line for every mistake, naming the file, the key and the value.
    """
    parsed = [it if isinstance(it, Override) else parse_override(it) for it in overrides]
    resolved = _resolve(path, apply_overrides(read_yaml(path), parsed))
    plugins = resolved.get("plugins")
    if isinstance(plugins, list) and all(isinstance(plugin, str) for plugin in plugins):
        resolved["plugins"] = plugins = [find_plugin(plugin, path.parent) for plugin in plugins]
        registry = load_registry(plugins)
    else:
        registry = load_registry()  # validation reports what is wrong with the list
    # After the plug-ins: one of them may define it.
    if "recipe" not in resolved:
        raise UserError(f"{path}: recipe: missing; it has no default")
    schema = recipe_options(resolved["recipe"], path)
    return Recipe(path, resolved, _validate(path, resolved, schema, registry, parsed), registry)


def read_yaml(path: Path) -> dict[str, Any]:
    """The recipe as it is in the file. Raises `UserError` if it is not a mapping in YAML."""
    try:
        content = OmegaConf.load(path)
    except FileNotFoundError as error:
        near = path.parent.glob("*.yaml") if path.parent.is_dir() else ()
        known = {str(recipe) for recipe in (*near, *shipped_recipes().values())}
        raise UserError(f"{path}: no such file{suggest(str(path), known)}") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(f"{path}: cannot be read: {reason}") from error
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UserError(f"{path}: {line}not YAML: {error.problem}") from error
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if not OmegaConf.is_dict(content):
        raise UserError(f"{path}: a recipe is a mapping of keys to values; this file is a list")
    return cast(dict[str, Any], OmegaConf.to_container(content))


def _resolve(path: Path, tree: dict[str, Any]) -> dict[str, Any]:
    try:
        resolved = OmegaConf.to_container(
            OmegaConf.create(tree), resolve=True, throw_on_missing=True
        )
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        raise UserError(f"{path}: {key}{str(error).splitlines()[0]}") from error
    return cast(dict[str, Any], resolved)


def _validate(
    path: Path,
    resolved: dict[str, Any],
    schema: type[RecipeOptions],
    registry: Registry,
    overrides: Sequence[Override],
) -> RecipeOptions:
    try:
        options = schema.model_validate(resolved, context={"registry": registry, "source": path})
    except ValidationError as error:
        raise UserError("\n".join(explain(error, path, overrides))) from error
    if problems := options.problems():
        raise UserError("\n".join(f"{path}: {problem}" for problem in problems))
    return options
