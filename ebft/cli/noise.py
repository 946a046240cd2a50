"""`ebft noise`: what a recipe's gradient says, before training."""

from __future__ import annotations

import argparse
import logging

from ebft.cli.run import add_recipe_command
from ebft.console import say, show
from ebft.diagnosis import FEWEST
from ebft.errors import UserError

DOCUMENTS = 20
"""By default. For recipes/ebft_full.yaml that is 42 TFLOP: under five minutes of two cores."""
EXAMPLES = """\
examples:
  ebft noise recipes/ebft_full.yaml
  ebft noise recipes/ebft_full.yaml --documents 96 --seed 1     more documents tell more
  ebft noise recipes/ebft_full.yaml --vary sampler.n=4,16 baseline=leave_one_out,none
  ebft noise recipes/ebft_full.yaml --vary 'transforms=[],[{_component_: whiten_running}]'

Each value of --vary changes one key of the recipe; all are measured on the same documents. Nothing
is trained, and nothing but noise.json and noise.png is written to output_dir. docs/noise.md says
how to read the figures.
"""

log = logging.getLogger("ebft")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `noise FILE [key=value ...] [--vary key=value,value ...]`."""
    parser = add_recipe_command(
        subparsers, "noise", noise,
        help="measure before training what a recipe's gradient says",
        description="Measures the signal and the noise of a fine-tuning recipe's gradients on some "
        "of its documents, and recommends n, documents per step and γ.",
        epilog=EXAMPLES,
    )  # fmt: skip
    parser.add_argument(
        "--vary", metavar="key=value,value", nargs="+", default=[], action="extend",
        help="values of a key to measure beside the recipe's own",
    )  # fmt: skip
    parser.add_argument(
        "--documents", metavar="N", type=int, default=DOCUMENTS,
        help=f"documents to measure (default: {DOCUMENTS})",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, help="in place of the recipe's: which documents")
    parser.add_argument(
        "--effect", metavar="SHARE", type=float, default=0.02,
        help="share of the gap between rollouts and references that a run is to close "
        "(default: 0.02)",
    )  # fmt: skip


def noise(arguments: argparse.Namespace) -> int:
    """Raises `UserError` for a mistake in the options, in the recipe or in a variation."""
    from ebft.distributed.processes import Launch

    check_options(arguments.documents, arguments.effect)
    if (size := Launch.of_environment().size) > 1:
        raise UserError(
            f"ebft noise runs in one process, and this is one of {size}: leave out "
            "--nproc_per_node and --nnodes"
        )
    from ebft.diagnosis.alternatives import load_alternatives

    overrides = list(arguments.overrides)
    if arguments.seed is not None:
        overrides.append(f"seed={arguments.seed}")
    found = load_alternatives(arguments.file, overrides, arguments.vary)

    from transformers.utils.logging import disable_progress_bar

    from ebft.diagnosis.picture import plot_findings
    from ebft.diagnosis.record import findings_json
    from ebft.diagnosis.run import diagnose
    from ebft.diagnosis.table import advice_lines, findings_table, law_table
    from ebft.files import write_whole

    disable_progress_bar()
    findings = diagnose(found, documents=arguments.documents, effect=arguments.effect)
    folder = found[0].options.output_dir
    write_whole(folder / "noise.json", findings_json(findings))
    plot_findings(findings, folder / "noise.png")
    show(findings_table(findings))
    if (table := law_table(findings.results[0].figures)) is not None:
        show("")
        show(table)
    say("", *advice_lines(findings))
    log.info("figures: %s; picture: %s", folder / "noise.json", folder / "noise.png")
    return 0


def check_options(documents: int, effect: float) -> None:
    """Raises `UserError` for too few documents, and for an effect that is no share."""
    if documents < FEWEST:
        raise UserError(f"--documents {documents}: intervals need {FEWEST} or more")
    if not 0 < effect <= 1:
        raise UserError(f"--effect {effect}: a share of the gap is above 0, and at most 1")
