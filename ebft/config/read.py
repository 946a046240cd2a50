"""Recipe files as they are written: one by itself, or with `base:`, on top of another.

    base: qa_code_qwen2.5_1.5b.yaml     a path from this file's own folder
    model: {path: Qwen/Qwen2.5-3B}      and only what differs

What a file says changes its base as the same overrides on the command line would: sections are
merged key by key, another `_component_` drops the options of the one before, lists are replaced.
`shipped_recipes` are those that come with ebft.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import OmegaConf

import ebft
from ebft.config.overrides import NOT_YAML, Override, apply_overrides
from ebft.errors import UserError
from ebft.mistakes import suggest


@dataclass(frozen=True, slots=True)
class Written:
    """A recipe with its bases merged in: its keys, with interpolations as they are.

    `files` are the file itself, its base, that one's base, and so on; `changes` is what all but the
    last of them say, in the order in which it was applied.
    """

    tree: dict[str, Any]
    files: tuple[Path, ...]
    changes: tuple[Override, ...]


def read_recipe(path: Path) -> Written:
    """The recipe in a file, merged with its bases.

    Raises `UserError` naming the file for a base that is missing or its own base, and for what
    `read_yaml` does not read.
    """
    layers = _layers(path)
    files = list(layers)
    tree = layers[files[-1]]
    changes: list[Override] = []
    for file in reversed(files[:-1]):
        layer = list(_changes(layers[file], str(file)))
        tree = apply_overrides(tree, layer)
        changes += layer
    return Written(tree, tuple(files), tuple(changes))


def read_yaml(path: Path) -> dict[str, Any]:
    """What is in the file, no more. Raises `UserError` if it is not a mapping in YAML."""
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
    except NOT_YAML as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if not OmegaConf.is_dict(content):
        raise UserError(f"{path}: a recipe is a mapping of keys to values; this file is a list")
    return cast(dict[str, Any], OmegaConf.to_container(content))


def _layers(path: Path) -> dict[Path, dict[str, Any]]:
    """What the file says, its base, that one's base, and so on, each without its `base`."""
    layers: dict[Path, dict[str, Any]] = {}
    file: Path | None = path
    while file is not None:
        content = read_yaml(file)
        layers[file] = content
        file = _base(file, content.pop("base"), layers) if "base" in content else None
    return layers


def _base(file: Path, base: Any, below: Iterable[Path]) -> Path:
    if not isinstance(base, str):
        raise UserError(f"{file}: base = {base}: must be the path of another recipe")
    found = file.parent / os.path.expanduser(base)
    if found.resolve() in [it.resolve() for it in below]:
        raise UserError(f"{file}: base = {base}: goes round in a circle, back to {found}")
    if not found.is_file():
        near = [it.name for it in found.parent.glob("*.yaml")] if found.parent.is_dir() else []
        hint = suggest(found.name, near) if near else ""
        raise UserError(f"{file}: base = {base}: no such file{hint}")
    return found


def _changes(
    content: Mapping[str, Any], origin: str, above: tuple[str, ...] = ()
) -> Iterator[Override]:
    """Each value of the file as an override of what is at its key."""
    for name, value in content.items():
        keys = (*above, str(name))
        if isinstance(value, Mapping) and value:
            yield from _changes(value, origin, keys)
        else:
            yield Override(".".join(keys), keys, value, origin=origin)


def recipes_folder() -> Path:
    """Where they are: inside the package if it was built, beside it in a checkout."""
    package = Path(ebft.__file__).parent
    built = package / "_recipes"
    return built if built.is_dir() else package.parent / "recipes"


def shipped_recipes() -> dict[str, Path]:
    """Every recipe file by its name: the path in the folder, without `.yaml`.

    A file below a checkout's folder is given relative to the working directory where it can be.
    """
    folder = recipes_folder()
    here = Path.cwd()
    return {
        path.relative_to(folder).with_suffix("").as_posix(): (
            path.relative_to(here) if path.is_relative_to(here) else path
        )
        for path in sorted(folder.rglob("*.yaml"))
    }
