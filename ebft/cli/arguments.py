"""Arguments that several subcommands share."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """`FILE [key=value ...]`."""
    parser.add_argument("file", metavar="FILE", type=Path, help="the recipe, a YAML file")
    parser.add_argument(
        "overrides",
        metavar="key=value",
        nargs="*",
        default=[],  # without it, argparse calls them required
        help="sets a key of the recipe, e.g. sampler.n=8; ~key deletes it",
    )
