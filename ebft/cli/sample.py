"""`ebft sample`: what a base model and a checkpoint write, side by side."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ebft.console import show
from ebft.errors import UserError

if TYPE_CHECKING:
    from ebft.config.load import Recipe

CONTEXTS = 8
"""By default. With four rollouts of each, they are read in a few minutes."""
EXAMPLES = """\
examples:
  ebft sample runs/mine                                     the newest checkpoint of a run
  ebft sample runs/mine/checkpoints/step-000030 --length 40 --n 2
  ebft sample runs/mine --prompts questions.txt sampler.temperature=0.7
  ebft sample MODEL --recipe recipes/ebft_full.yaml         a model without a recipe of its own

Both models get the same contexts and the same random numbers. The recipe is the checkpoint's own:
its held-out documents, its plan, sampler, feature map and reward. Keys of the recipe can be set as
in `ebft run`. Prompts are a .txt file with one in each line, or a .jsonl or .json file with
`prompt` (and `completion`) or `messages`; docs/sample.md describes them.
"""

log = logging.getLogger("ebft")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `sample CHECKPOINT [key=value ...] [--base …] [--prompts FILE] [--recipe RECIPE] …`."""
    parser = subparsers.add_parser(
        "sample",
        help="show what a checkpoint and its base model write, side by side",
        description="Samples from a checkpoint and from its base model after the same contexts, "
        "and shows both beside the reference: as a table, one HTML page and one JSON Lines file.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a checkpoint, or the output_dir of a run"
    )
    parser.add_argument(
        "overrides", metavar="key=value", nargs="*", default=[],
        help="sets a key of the recipe, e.g. sampler.temperature=0.7",
    )  # fmt: skip
    parser.add_argument("--base", help="in place of the model that the checkpoint was trained from")
    parser.add_argument(
        "--prompts", metavar="FILE", type=Path, help="in place of held-out documents"
    )
    parser.add_argument(
        "--recipe", metavar="RECIPE", type=Path, help="in place of the checkpoint's own recipe"
    )
    parser.add_argument(
        "--n", metavar="N", type=int, help="rollouts of each context (default: the recipe's)"
    )
    parser.add_argument(
        "--contexts", metavar="N", type=int, default=CONTEXTS,
        help=f"held-out documents (default: {CONTEXTS})",
    )  # fmt: skip
    parser.add_argument(
        "--length", metavar="TOKENS", type=int,
        help="most tokens of a rollout (default: the recipe's plan.rollout_length)",
    )  # fmt: skip
    parser.add_argument(
        "--output", metavar="FILE", type=Path,
        help="the .jsonl file; the page is beside it, as .html (default: samples/ in the run's "
        "folder, or in this one)",
    )  # fmt: skip
    parser.set_defaults(command=sample)


def sample(arguments: argparse.Namespace) -> int:
    """Raises `UserError` for a mistake in the options, the recipe, the prompts or a model."""
    check_options(arguments)
    from ebft.data.prompts import read_prompts
    from ebft.report.samples import samples_table, summary_of_samples, write_samples
    from ebft.sample.sampling import sample_both
    from ebft.sample.two_models import find_checkpoint

    checkpoint = find_checkpoint(arguments.checkpoint)
    recipe = load(arguments, checkpoint)
    prompts = None
    if arguments.prompts is not None:
        prompts = read_prompts(arguments.prompts, "--prompts")

    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    samples = sample_both(
        recipe.options, recipe.registry, checkpoint=checkpoint, base=arguments.base,
        prompts=prompts, n=arguments.n, count=arguments.contexts,
    )  # fmt: skip
    file = arguments.output or default_output(checkpoint)
    write_samples(samples, file)
    show(samples_table(samples))
    if (means := summary_of_samples(samples)) is not None:
        show("")
        show(means)
    log.info("samples: %s; page: %s", file, file.with_suffix(".html"))
    return 0


def check_options(arguments: argparse.Namespace) -> None:
    """Raises `UserError` for counts below 1, and for a file of another name."""
    for name in ("n", "contexts", "length"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} {value}: give 1 or more")
    if arguments.output is not None and arguments.output.suffix != ".jsonl":
        raise UserError(f"--output {arguments.output}: give a file that ends in .jsonl")


def load(arguments: argparse.Namespace, checkpoint: str) -> Recipe:
    """Loads the recipe with its overrides. Raises `UserError` for one that runs no model."""
    from ebft.config.load import load_recipe
    from ebft.runs.options import ModelRecipeOptions
    from ebft.sample.two_models import recipe_of

    overrides = list(arguments.overrides)
    if arguments.length is not None:
        overrides.append(f"plan.rollout_length={arguments.length}")
    recipe = load_recipe(arguments.recipe or recipe_of(checkpoint), overrides)
    if not isinstance(recipe.options, ModelRecipeOptions):
        raise UserError(
            f"--recipe {arguments.recipe}: recipe = {recipe.options.recipe}: has no model and data "
            "of its own; give one of the recipes that it runs"
        )
    return recipe


def default_output(checkpoint: str) -> Path:
    """`samples/NAME.jsonl`, in the folder of the run that wrote the checkpoint, or in this one."""
    path = Path(checkpoint).expanduser()
    if path.parent.name == "checkpoints":
        return path.parent.parent / "samples" / f"{path.name}.jsonl"
    return Path("samples") / f"{path.name}.jsonl"
