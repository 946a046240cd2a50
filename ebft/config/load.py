"""Recipe file + overrides → validated options, and the registry of their parts.

Recipes do not read environment variables, because resolved recipes are saved with their results.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from ebft.config.dump import check_text, plain_options
from ebft.config.explain import explain
from ebft.config.overrides import Override, apply_overrides, parse_override
from ebft.config.read import read_recipe
from ebft.config.recipe import Job, RecipeOptions, find_job
from ebft.errors import UserError
from ebft.parts.modules import find_plugin
from ebft.parts.registry import Registry, load_registry

MISSING = re.compile("Interpolation key '(.*)' not found")
"""OmegaConf's message for `${key}` with a missing key."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A validated recipe file and its job. `resolved` is the validated mapping, with interpolations
    resolved and without defaults."""

    source: Path
    resolved: dict[str, Any]
    job: Job[Any]

    @property
    def options(self) -> Any:
        """The job's options, of type `schema`."""
        return self.job.options

    @property
    def registry(self) -> Registry:
        """The parts that the recipe can name."""
        return self.job.registry


def load_recipe(
    source: Path | Mapping[str, Any],
    overrides: Sequence[str | Override] = (),
    *,
    importable: Collection[str] = (),
) -> Recipe:
    """Reads, overrides, resolves and validates a recipe: a file, or a mapping.

    Dotted paths may also lead into the modules `importable`. Raises `UserError` with one line for
    every mistake, naming the file, the key and the value.
    """
    refuse_environment()
    written = read_recipe(source)
    path = written.files[0]
    parsed = [it if isinstance(it, Override) else parse_override(it) for it in overrides]
    resolved = _resolve(path, apply_overrides(written.tree, parsed))
    plugins = resolved.get("plugins")
    if isinstance(plugins, list) and all(isinstance(plugin, str) for plugin in plugins):
        folders = [file.parent for file in written.files]
        resolved["plugins"] = plugins = [find_plugin(plugin, folders) for plugin in plugins]
        registry = load_registry(plugins)
    else:
        registry = load_registry()  # validation reports the mistake in the list
    registry = registry.trusting(importable)
    # After the plug-ins, because one of them may define the recipe.
    if "recipe" not in resolved:
        raise UserError(f"{path}: recipe: missing; it has no default")
    kind = find_job(resolved["recipe"], path, registry)
    changes = [*written.changes, *parsed]
    options = _validate(written.files, resolved, kind.schema, registry, changes)
    check_text(plain_options(options, registry))
    job = kind(options, registry, source=path)
    if problems := job.problems():
        raise UserError(*(f"{path}: {problem}" for problem in problems))
    return Recipe(path, resolved, job)


def _resolve(path: Path, tree: dict[str, Any]) -> dict[str, Any]:
    if isinstance(folder := tree.get("output_dir"), str):
        check_output_dir(folder, path)
        # Validation does not expand a logger's ${output_dir}/logs, which is not a path option.
        tree = {**tree, "output_dir": os.path.expanduser(folder)}
    try:
        resolved = OmegaConf.to_container(
            OmegaConf.create(tree), resolve=True, throw_on_missing=True
        )
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        problem = str(error).splitlines()[0]
        if (found := MISSING.search(problem)) is not None:
            problem = (
                f"refers to ${{{found[1]}}}, which does not exist; set {found[1]}, or give a value "
                "in its place"
            )
        raise UserError(f"{path}: {key}{problem}") from error
    return cast(dict[str, Any], resolved)


def check_output_dir(folder: str, path: Path) -> None:
    """Raises `UserError` for what is no name of a folder, in the recipe at `path`."""
    if not folder.strip():
        raise UserError(f"{path}: output_dir: is empty; give a folder, such as runs/first")
    check_text(folder, "output_dir")


def _validate(
    files: Sequence[Path],
    resolved: dict[str, Any],
    schema: type[RecipeOptions],
    registry: Registry,
    changes: Sequence[Override],
) -> RecipeOptions:
    try:
        return schema.model_validate(resolved, context={"registry": registry, "source": files[0]})
    except ValidationError as error:
        raise UserError(*explain(error, resolved, files[-1], changes)) from error


def refuse_environment() -> None:
    """Makes `${oc.env:NAME}` an error, because a token would be saved in every checkpoint."""
    OmegaConf.register_resolver("oc.env", _refuse, replace=True)


def _refuse(name: str, *_default: Any) -> Any:
    raise ValueError(
        f"recipes do not read environment variables ({name}), because the resolved recipe is saved "
        "with every result; write the value itself, or leave a secret out: libraries read theirs "
        "from the environment (HF_TOKEN, WANDB_API_KEY)"
    )
