"""The recipes that come with ebft."""

from __future__ import annotations

from pathlib import Path

import ebft


def recipes_folder() -> Path:
    """Returns their folder: inside an installed package, beside the package in a checkout."""
    package = Path(ebft.__file__).parent
    built = package / "_recipes"
    return built if built.is_dir() else package.parent / "recipes"


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
