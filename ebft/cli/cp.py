"""`ebft cp`: copies a recipe that comes with ebft."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from ebft.console import say
from ebft.errors import UserError

BASE_RECIPE = re.compile(r"(base_recipe: *)([^\s,}]+)")
EPILOG = """\
examples:
  ebft cp ebft_full my_recipe.yaml
  ebft cp ebft_full my_folder/ --force
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `cp RECIPE DEST [--force]`."""
    parser = subparsers.add_parser(
        "cp",
        help="copy a recipe that comes with ebft",
        description="Copies a recipe that comes with ebft, so that you can change it. `ebft ls` "
        "lists them. If a recipe has a `base:`, the copy contains the merged recipe.",
        epilog=EPILOG,
    )
    parser.add_argument("recipe", metavar="RECIPE", help="its name, e.g. ebft_full")
    parser.add_argument("destination", metavar="DEST", help="a file, or a folder (FOLDER/)")
    parser.add_argument("--force", action="store_true", help="replace DEST if it exists")
    parser.set_defaults(command=copy)


def copy(arguments: argparse.Namespace) -> int:
    """Copies a recipe. Raises `UserError` if there is no such recipe, or DEST is not writable."""
    from ebft.config.read import shipped_recipes
    from ebft.errors import suggest

    recipes = shipped_recipes()
    name = arguments.recipe.removeprefix("recipes/").removesuffix(".yaml")
    if name not in recipes:
        raise UserError(f"no recipe is named {name!r}{suggest(name, recipes)}")
    source: Path = recipes[name]
    destination = Path(arguments.destination)
    if destination.is_dir() or arguments.destination.endswith("/"):
        destination = destination / source.name
    if destination.exists() and not arguments.force:
        raise UserError(f"{destination} already exists; --force replaces it")
    text = standalone_text(source)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        destination.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {destination}: {error.strerror or error}") from error
    say(f"{source} → {destination}")
    return 0


def standalone_text(source: Path) -> str:
    """The text of a recipe that can be loaded from any folder.

    A `base` is merged into it, and then only the comment at the top is kept. The path of a
    `base_recipe` is made absolute.
    """
    from itertools import takewhile

    from omegaconf import OmegaConf

    from ebft.config.read import read_recipe

    text = source.read_text(encoding="utf-8")
    written = read_recipe(source)
    if len(written.files) == 1:
        return BASE_RECIPE.sub(
            lambda found: found[1] + str((source.parent / found[2]).resolve()), text
        )
    comment = takewhile(lambda line: line.startswith("#"), text.splitlines())
    return "\n".join([*comment, "", OmegaConf.to_yaml(OmegaConf.create(written.tree))])
