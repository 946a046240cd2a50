"""`ebft compare` and `ebft report`: tables and reports of finished runs and studies."""

from __future__ import annotations

import argparse
from pathlib import Path

from ebft.console import Printer, say

COMPARE_EXAMPLES = """\
examples:
  ebft compare runs/sft runs/ebft                    two runs
  ebft compare runs/sft runs/ebft runs/ebft_n8       each of the others with the first
  ebft compare runs/eval_before/evaluations.jsonl runs/eval_after
  ebft compare runs/methods/record/SFT-seed0-93b29236 runs/methods/record/EBFT-seed0-01429834

The last line names two runs in the record of a study.

Figures are paired if they were measured on the same documents: give the runs the same data, seed
and `evaluation`, or measure their checkpoints with one recipe of `ebft eval`. If figures cannot be
paired, the table says so instead of the difference, with the reason below. Intervals are over
documents, not over seeds; for intervals over seeds use `ebft study`.
"""


def add_compare(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `compare RUN_A RUN_B [RUN_C ...]`."""
    parser = subparsers.add_parser(
        "compare",
        help="compare the held-out figures of runs, document by document",
        usage="ebft compare [-h] RUN_A RUN_B [RUN_C ...]",
        description="Prints the last value of every held-out figure that the runs share, and its "
        "difference from the first run, paired over documents, with 95 % intervals.",
        epilog=COMPARE_EXAMPLES,
    )
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        type=Path,
        help="a run's output_dir, its evaluations.jsonl, or RECORD/NAME in a study's record",
    )
    parser.set_defaults(command=compare)


def compare(arguments: argparse.Namespace) -> int:
    """Prints the table. Raises `UserError` for a run without evaluations, and for runs that share
    no figure."""
    from ebft.report.comparison_table import comparison_table
    from ebft.report.read_runs import read_runs

    Printer().print(comparison_table(read_runs(arguments.runs)))
    return 0


def add_report(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `report FOLDER`."""
    parser = subparsers.add_parser(
        "report",
        help="write the page of a run or a study again",
        description="Writes the page of a run, report.html, from its folder; or the report of a "
        "study from its folder or its record: tables, pictures, one page. Unfinished runs of a "
        "study are listed as such.",
    )
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        type=Path,
        help="the output_dir of a run or a study, or a study's record",
    )
    parser.set_defaults(command=report)


def report(arguments: argparse.Namespace) -> int:
    """Writes the report and prints its path. Raises `UserError` if the folder has neither a run nor
    a study."""
    from ebft.runs.folder import RECIPE

    folder: Path = arguments.folder
    if (folder / RECIPE).is_file():
        from ebft.runs.page import write_run_page

        say(str(write_run_page(folder)))
        return 0
    from ebft.study.report.make import write_report

    say(str(write_report(folder)))
    return 0
