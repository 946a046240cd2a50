"""`ebft study`, also called `ebft ablate`: runs a study file and reports on it."""

from __future__ import annotations

import argparse

from ebft.cli import run
from ebft.cli.arguments import add_recipe
from ebft.errors import UserError

EPILOG = """\
examples:
  ebft ablate recipes/ablations/reward_terms.yaml --dry-run    the runs and what they cost
  ebft ablate recipes/ablations/reward_terms.yaml              run them; again: go on
  ebft study my_study.yaml seeds=[0,1,2] budget.minutes=60     in parts of an hour

Runs that are done are skipped, so the same command goes on after Ctrl-C, a crash or a change of the
file. Several processes, on several machines, may work on one folder: each takes runs that no other
has. `ebft run FILE` and `tune run FILE` do the same.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `study FILE [key=value ...] [--dry-run]` and its other name, `ablate`."""
    parser = subparsers.add_parser(
        "study",
        aliases=["ablate"],
        help="run a study: many runs from one file, and their report",
        description="Runs every run that a study file plans, each in a process of its own, and "
        "writes a report: tables with intervals, pictures, one page.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_recipe(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="print the runs and what they would cost"
    )
    parser.set_defaults(command=study)


def study(arguments: argparse.Namespace) -> int:
    """Raises `UserError` for a file that is no study, else as `ebft run`."""
    from ebft.config.load import load_recipe
    from ebft.study.options import StudyOptions

    recipe = load_recipe(arguments.file, arguments.overrides)
    if not isinstance(recipe.options, StudyOptions):
        raise UserError(
            f"{arguments.file}: recipe = {recipe.options.recipe}: not a study; "
            f"`ebft run {arguments.file}` runs it"
        )
    return run.run_or_describe(recipe, dry_run=arguments.dry_run)
