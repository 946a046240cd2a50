"""`ebft run`: runs a recipe."""

from __future__ import annotations

import argparse
import os

from ebft.cli.arguments import add_recipe
from ebft.errors import UserError

EPILOG = """\
examples:
  ebft run recipes/ebft_full.yaml
  ebft run recipes/ebft_full.yaml sampler.n=8 reward.diversity=0.5
  ebft run recipes/ebft_full.yaml baseline=none '~data.held_out'
  ebft run recipes/ebft_full.yaml evaluation.evaluators.1.n=8 --dry-run

Choosing another part (baseline=none) drops the options of the one that it replaces.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `run FILE [key=value ...] [--dry-run]`."""
    parser = subparsers.add_parser(
        "run",
        help="run a recipe",
        description="Runs a recipe.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_recipe(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the resolved recipe and what it would cost; load and start nothing",
    )
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0 when all steps are done, 130 when Ctrl-C has stopped them."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        if os.environ.get("RANK", "0") != "0":
            return 0  # a failure here could end the first process before it has said why
        raise UserError(
            f"ebft trains in one process so far, and this is one of {processes}: "
            "leave out --nproc_per_node and --nnodes"
        )

    from ebft.config.load import load_recipe
    from ebft.config.recipe_class import find_recipe_class

    recipe = load_recipe(arguments.file, arguments.overrides)
    if arguments.dry_run:
        from ebft.cli.dry_run import describe

        print(describe(recipe))
        return 0
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # the run has its own; loading weights takes a second
    job = find_recipe_class(recipe.options.recipe)(
        recipe.options, recipe.registry, source=recipe.source
    )
    try:
        job.setup()
        finished = job.train()
    finally:
        job.cleanup()
    return 0 if finished else 130
