"""Reads recipe files, merged with the recipe that `base:` names.

    base: qa_code_qwen2.5_1.5b.yaml     a path relative to this file's folder
    model: {path: Qwen/Qwen2.5-3B}      only the differences

A file changes its base like the same overrides on the command line: sections are merged key by key,
another `_component_` drops the options of the old one, lists are replaced. `shipped_recipes` are
the recipes that come with ebft.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import OmegaConf

from ebft.config.overrides import NOT_YAML, Override, apply_overrides
from ebft.errors import UserError, suggest
from ebft.parts.version import PACKAGE


@dataclass(frozen=True, slots=True)
class Written:
    """A recipe merged with its bases; interpolations are not resolved.

    `files` are the file itself, its base, the base's base, and so on. `changes` are the overrides
    of all files but the last, in the order in which they were applied.
    """

    tree: dict[str, Any]
    files: tuple[Path, ...]
    changes: tuple[Override, ...]


IN_MEMORY = Path("recipe")
"""What messages call a recipe that is no file."""


def read_recipe(source: Path | Mapping[str, Any]) -> Written:
    """Returns the recipe in a file, or a mapping, merged with its bases. The base of a mapping is
    relative to the working directory.

    Raises `UserError` naming the file for a base that is missing or refers back to itself, and for
    a file that `read_yaml` cannot read.
    """
    layers = _layers(source)
    files = list(layers)
    tree = layers[files[-1]]
    changes: list[Override] = []
    for file in reversed(files[:-1]):
        layer = list(_changes(layers[file], str(file)))
        tree = apply_overrides(tree, layer)
        changes += layer
    return Written(tree, tuple(files), tuple(changes))


def read_yaml(path: Path) -> dict[str, Any]:
    """Returns the content of one file. Raises `UserError` if it is not a mapping in YAML."""
    try:
        content = OmegaConf.load(path)
    except FileNotFoundError as error:
        near = path.parent.glob("*.yaml") if path.parent.is_dir() else ()
        shipped = shipped_recipes()
        known = {str(recipe) for recipe in (*near, *shipped.values())}
        hint = suggest(str(path), known)
        if str(path) in shipped:
            hint = f"; it is the name of a recipe of ebft's, in the file {shipped[str(path)]}"
        raise UserError(f"{path}: no such file{hint}") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(f"{path}: cannot be read: {reason}") from error
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UserError(f"{path}: {line}not YAML: {error.problem}") from error
    except NOT_YAML as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if not OmegaConf.is_dict(content):
        raise UserError(f"{path}: a recipe is a mapping of keys to values; this file is a list")
    return cast(dict[str, Any], OmegaConf.to_container(content))


def _layers(source: Path | Mapping[str, Any]) -> dict[Path, dict[str, Any]]:
    """Returns the content of the file, its base, and so on, each without its key `base`."""
    layers: dict[Path, dict[str, Any]] = {}
    file: Path | None = source if isinstance(source, Path) else IN_MEMORY
    while file is not None:
        if not layers and not isinstance(source, Path):
            content = deepcopy(dict(source))
        else:
            content = read_yaml(file)
        layers[file] = content
        file = _base(file, content.pop("base"), layers) if "base" in content else None
    return layers


def _base(file: Path, base: Any, below: Iterable[Path]) -> Path:
    if not isinstance(base, str):
        raise UserError(f"{file}: base = {base}: must be the path of another recipe")
    found = file.parent / os.path.expanduser(base)
    if found.resolve() in [it.resolve() for it in below]:
        raise UserError(f"{file}: base = {base}: forms a circle, back to {found}")
    if not found.is_file():
        near = [it.name for it in found.parent.glob("*.yaml")] if found.parent.is_dir() else []
        hint = suggest(found.name, near) if near else ""
        raise UserError(f"{file}: base = {base}: no such file{hint}")
    return found


def _changes(
    content: Mapping[str, Any], origin: str, above: tuple[str, ...] = ()
) -> Iterator[Override]:
    """Yields each value of the file as an override."""
    for name, value in content.items():
        keys = (*above, str(name))
        if isinstance(value, Mapping) and value:
            yield from _changes(value, origin, keys)
        else:
            yield Override(".".join(keys), keys, value, origin=origin)


def recipes_folder() -> Path:
    """Returns their folder: inside an installed package, beside the package in a checkout."""
    built = PACKAGE / "_recipes"
    return built if built.is_dir() else PACKAGE.parent / "recipes"


def shipped_recipes() -> dict[str, Path]:
    """Returns every recipe file by name, the path in the folder without `.yaml`.

    In a checkout, paths are relative to the working directory if possible.
    """
    folder = recipes_folder()
    here = Path.cwd()
    return {
        path.relative_to(folder).with_suffix("").as_posix(): (
            path.relative_to(here) if path.is_relative_to(here) else path
        )
        for path in sorted(folder.rglob("*.yaml"))
    }
