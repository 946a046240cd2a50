"""`ebft run`: runs a recipe."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ebft.cli.arguments import add_recipe
from ebft.console import say
from ebft.errors import UserError

if TYPE_CHECKING:
    from ebft.config.load import Recipe

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
    """Exit status 0 when all is done, 130 when Ctrl-C has stopped them."""
    from ebft.cli.one_voice import one_voice
    from ebft.config.load import load_recipe
    from ebft.distributed.processes import Launch

    launch = Launch.of_environment()
    with one_voice(launch):
        recipe = load_recipe(arguments.file, arguments.overrides)
        if launch.size > 1 and not recipe.job.several_processes:
            raise UserError(
                f"{recipe.source}: recipe = {recipe.options.recipe}: runs in one process, and this "
                f"is one of {launch.size}: leave out --nproc_per_node and --nnodes"
            )
        return run_or_describe(recipe, dry_run=arguments.dry_run)


def run_or_describe(recipe: Recipe, *, dry_run: bool) -> int:
    """Runs a recipe, or prints what it would do; the exit status is `run`'s."""
    if dry_run:
        say(*describe(recipe).split("\n"))
        return 0
    from ebft.runs.jobs import run_job

    return 0 if run_job(recipe.job) else 130


def describe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, with the estimate in comments: the whole is a recipe again."""
    from ebft.config.dump import resolved_yaml

    try:
        estimate = recipe.job.estimate()
    except ValueError as error:
        estimate = f"no estimate: {error}"
    comments = "\n".join(f"# {line}".rstrip() for line in estimate.splitlines())
    return f"{resolved_yaml(recipe.options, recipe.registry)}\n{comments}"
