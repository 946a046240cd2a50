"""`ebft eval`: measures a model without training it."""

from __future__ import annotations

import argparse

from ebft.cli.arguments import add_recipe
from ebft.cli.run import run_or_describe
from ebft.errors import UserError

EPILOG = """\
examples:
  ebft eval recipes/evaluate.yaml                               the embedded model
  ebft eval recipes/evaluate.yaml model.path=runs/mine/checkpoints/step-000030 \\
      model.base=smollm2-135m-instruct                          what training has made of it
  ebft eval recipes/evaluate.yaml evaluation.documents=200 output_dir=runs/eval_200

`ebft run` does the same with such a recipe. Features are those of model.base: to compare
checkpoints, give all of them the same one.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `eval FILE [key=value ...] [--dry-run]`."""
    parser = subparsers.add_parser(
        "eval",
        help="measure a model or a checkpoint, without training",
        description="Measures a model on held-out documents, as a recipe of the kind `evaluate` "
        "says.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_recipe(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="print the resolved recipe; load and start nothing"
    )
    parser.set_defaults(command=evaluate)


def evaluate(arguments: argparse.Namespace) -> int:
    """Exit status 0 when all is measured. Raises `UserError` for a recipe of another kind."""
    from ebft.config.load import load_recipe
    from ebft.runs.options import EvaluateOptions

    recipe = load_recipe(arguments.file, arguments.overrides)
    if not isinstance(recipe.options, EvaluateOptions):
        raise UserError(
            f"{arguments.file}: recipe = {recipe.options.recipe}: is not one that evaluates; run "
            "it with `ebft run`, or start from recipes/evaluate.yaml"
        )
    return run_or_describe(recipe, dry_run=arguments.dry_run)
