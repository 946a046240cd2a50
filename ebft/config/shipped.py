"""The recipes that come with ebft."""

from __future__ import annotations

from pathlib import Path

import ebft


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
