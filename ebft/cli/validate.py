"""`ebft validate`: finds the mistakes in a recipe."""

from __future__ import annotations

import argparse

from ebft.cli.arguments import add_recipe
from ebft.console import say

EPILOG = """\
examples:
  ebft validate my_recipe.yaml
  ebft validate my_recipe.yaml sampler.n=8
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `validate FILE [key=value ...]`."""
    parser = subparsers.add_parser(
        "validate",
        help="find the mistakes in a recipe",
        description="Checks a recipe without running it: one line for every mistake. Only the "
        "modules that its `plugins` lists are imported.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_recipe(parser)
    parser.set_defaults(command=validate)


def validate(arguments: argparse.Namespace) -> int:
    """Exit status 0 for a valid recipe, also if what it names is missing here; a mistake raises
    `UserError`."""
    from ebft.config.load import load_recipe

    missing = load_recipe(arguments.file, arguments.overrides).options.missing()
    say(
        f"{arguments.file}: valid" + (", but not on this machine:" if missing else ""),
        *(f"  {line}" for line in missing),
    )
    return 0
