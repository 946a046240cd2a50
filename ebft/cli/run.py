"""`ebft run`, `eval`, `study` (or `ablate`) and `validate`: the commands that take a recipe."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebft.console import say, show
from ebft.errors import UserError

if TYPE_CHECKING:
    from ebft.cli.preview import Preview
    from ebft.config.load import Recipe
    from ebft.config.recipe import RecipeOptions

RUN_EXAMPLES = """\
examples:
  ebft run recipes/ebft_full.yaml
  ebft run recipes/ebft_full.yaml sampler.n=8 reward.diversity=0.5
  ebft run recipes/ebft_full.yaml baseline=none '~data.held_out'
  ebft run recipes/ebft_full.yaml evaluation.evaluators.1.n=8 --dry-run

Choosing another part (baseline=none) removes the options of the part that it replaces.
"""
EVAL_EXAMPLES = """\
examples:
  ebft eval recipes/evaluate.yaml                               the embedded model
  ebft eval recipes/evaluate.yaml model.path=runs/mine/checkpoints/step-000030 \\
      model.base=smollm2-135m-instruct                          a checkpoint of that model
  ebft eval recipes/evaluate.yaml evaluation.documents=200 output_dir=runs/eval_200

`ebft run` does the same with such a recipe, and `tune run --nproc_per_node N FILE` in N processes.
Features are computed with model.base: to compare checkpoints, use the same model.base for all of
them.
"""
STUDY_EXAMPLES = """\
examples:
  ebft ablate recipes/ablations/reward_terms.yaml --dry-run    show the runs and their cost
  ebft ablate recipes/ablations/reward_terms.yaml              run them, or continue
  ebft study my_study.yaml seeds=[0,1,2] budget.minutes=60     run for about an hour

Complete runs are skipped, so the same command continues a study after Ctrl-C, a crash or a change
of the file. Several processes, also on several machines, may work on one folder: each starts runs
that no other process has started. `ebft run FILE` and `tune run FILE` do the same.
"""
VALIDATE_EXAMPLES = """\
examples:
  ebft validate my_recipe.yaml
  ebft validate my_recipe.yaml sampler.n=8
  ebft validate my_recipe.yaml --data           also show documents as the model will see them
"""
RECIPE = "the keys and values of the recipe, and that its parts fit together"
"""What `ebft validate` checks of any recipe."""


def add_run(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `run FILE [key=value ...] [--dry-run]`."""
    parser = add_recipe_command(
        subparsers, "run", run,
        help="run a recipe",
        description="Runs a recipe.",
        epilog=RUN_EXAMPLES,
    )  # fmt: skip
    add_dry_run(parser, "print the resolved recipe and its estimated cost, without running it")


def run(arguments: argparse.Namespace) -> int:
    """Runs a recipe. The exit status is 0 if it is complete, 130 if Ctrl-C stopped it."""
    with loaded(arguments) as recipe:
        return run_or_show(recipe, dry_run=arguments.dry_run)


@contextmanager
def loaded(arguments: argparse.Namespace) -> Iterator[Recipe]:
    """A context in which only the main process prints, with the recipe of the command line.

    Raises `UserError` for several processes, if the recipe runs in one only.
    """
    from ebft.cli.main_process import main_process_output
    from ebft.config.load import load_recipe
    from ebft.distributed.processes import Launch

    launch = Launch.of_environment()
    with main_process_output(launch):
        recipe = load_recipe(arguments.file, arguments.overrides)
        if launch.size > 1 and not recipe.job.several_processes:
            raise UserError(
                f"{recipe.source}: recipe = {recipe.options.recipe}: runs in one process only, not "
                f"in {launch.size}: leave out --nproc_per_node and --nnodes"
            )
        yield recipe


def add_eval(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `eval FILE [key=value ...] [--dry-run]`."""
    parser = add_recipe_command(
        subparsers, "eval", evaluate,
        help="measure a model or a checkpoint, without training",
        description="Measures a model on held-out documents, with a recipe of the kind `evaluate`.",
        epilog=EVAL_EXAMPLES,
    )  # fmt: skip
    add_dry_run(parser, "print the resolved recipe, without running it")


def evaluate(arguments: argparse.Namespace) -> int:
    """Runs an evaluation. Raises `UserError` for a recipe of another kind."""
    from ebft.runs.options import EvaluateOptions

    return run_kind(
        arguments, EvaluateOptions,
        "is not an evaluation; run it with `ebft run`, or start from recipes/evaluate.yaml",
    )  # fmt: skip


def add_study(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `study FILE [key=value ...] [--dry-run]` and its alias `ablate`."""
    parser = add_recipe_command(
        subparsers, "study", study,
        aliases=["ablate"],
        help="run a study: many runs from one file, and their report",
        description="Runs all runs of a study file, each in a process of its own, and writes a "
        "report: tables with intervals, pictures, one page.",
        epilog=STUDY_EXAMPLES,
    )  # fmt: skip
    add_dry_run(parser, "print the runs and their estimated cost")


def study(arguments: argparse.Namespace) -> int:
    """Runs a study. Raises `UserError` for a recipe of another kind."""
    from ebft.study.options import StudyOptions

    return run_kind(
        arguments, StudyOptions, f"is not a study; run it with `ebft run {arguments.file}`"
    )


def add_validate(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `validate FILE [key=value ...] [--data]`."""
    parser = add_recipe_command(
        subparsers, "validate", validate,
        help="find the mistakes in a recipe",
        description="Checks a recipe without running it, and prints one line for each mistake, or "
        "what was checked and what was not. The modules in its `plugins` are imported.",
        epilog=VALIDATE_EXAMPLES,
    )  # fmt: skip
    parser.add_argument(
        "--data", action="store_true",
        help="also read the data, and show three documents as the model will see them: their "
        "tokens, the anchors, and what is trained on; the model's weights are not loaded",
    )  # fmt: skip


def validate(arguments: argparse.Namespace) -> int:
    """Checks a recipe. Raises `UserError` for mistakes; files that are missing on this machine are
    only listed."""
    from ebft.config.load import load_recipe
    from ebft.runs.options import ModelRecipeOptions

    recipe = load_recipe(arguments.file, arguments.overrides)
    if missing := recipe.job.missing():
        say(f"{arguments.file}: valid, but not on this machine:", *(f"  {it}" for it in missing))
    data = read_data(recipe) if arguments.data else None
    if not missing:
        say(f"{arguments.file}: valid")
    if data is None:
        has_data = isinstance(recipe.options, ModelRecipeOptions)
        unread = "the model, and the data, which --data reads" if has_data else "models and data"
        say(f"  checked: {RECIPE}", f"  not checked: {unread}")
        return 0
    say(
        f"  checked: {RECIPE}; the tokenizer; the data",
        f"  not checked: {', '.join([*data.unread, 'the weights of the model'])}",
    )
    for text in data.texts:
        show(text)
    return 0


def read_data(recipe: Recipe) -> Preview:
    """Reads the data of a recipe. Raises `UserError` for data that cannot be used, and for a recipe
    without data of its own."""
    from ebft.runs.options import ModelRecipeOptions

    if not isinstance(recipe.options, ModelRecipeOptions):
        raise UserError(
            f"{recipe.source}: recipe = {recipe.options.recipe}: has no data of its own; leave out "
            "--data, or give one of the recipes that it runs"
        )
    from ebft.cli.preview import preview

    return preview(recipe.options)


def add_recipe_command(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    command: Callable[[argparse.Namespace], int],
    **texts: Any,
) -> argparse.ArgumentParser:
    """Adds a command that takes `FILE [key=value ...]`; `texts` are passed to argparse."""
    parser = subparsers.add_parser(name, **texts)
    parser.add_argument("file", metavar="FILE", type=Path, help="the recipe, a YAML file")
    parser.add_argument(
        "overrides",
        metavar="key=value",
        nargs="*",
        default=[],  # without a default, argparse shows them as required
        help="sets a key of the recipe, e.g. sampler.n=8; ~key deletes it",
    )
    parser.set_defaults(command=command)
    return parser


def add_dry_run(parser: argparse.ArgumentParser, does: str) -> None:
    """Adds `--dry-run` to a command."""
    parser.add_argument("--dry-run", action="store_true", help=does)


def run_kind(arguments: argparse.Namespace, kind: type[RecipeOptions], otherwise: str) -> int:
    """Runs a recipe of one kind. For another kind raises `UserError` with the text `otherwise`."""
    with loaded(arguments) as recipe:
        if not isinstance(recipe.options, kind):
            raise UserError(f"{arguments.file}: recipe = {recipe.options.recipe}: {otherwise}")
        return run_or_show(recipe, dry_run=arguments.dry_run)


def run_or_show(recipe: Recipe, *, dry_run: bool) -> int:
    """Runs a recipe, or with `dry_run` prints it with its estimate. Returns the exit status."""
    if dry_run:
        say(*dry_run_text(recipe).split("\n"))
        return 0
    from ebft.runs.jobs import run_job

    return 0 if run_job(recipe.job) else 130


def dry_run_text(recipe: Recipe) -> str:
    """The resolved recipe as YAML, with the estimate as comments, so that it can be loaded."""
    from ebft.config.dump import resolved_yaml

    try:
        estimate = recipe.job.estimate()
    except ValueError as error:
        estimate = f"no estimate: {error}"
    comments = "\n".join(f"# {line}".rstrip() for line in estimate.splitlines())
    return f"{resolved_yaml(recipe.options, recipe.registry)}\n{comments}"
