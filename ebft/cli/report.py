"""`ebft report`: writes the report of a study again, from its folder or record alone."""

from __future__ import annotations

import argparse
from pathlib import Path

from ebft.console import say


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `report FOLDER`."""
    parser = subparsers.add_parser(
        "report",
        help="write the report of a study again",
        description="Writes a study's report from its folder alone, or from its record: tables, "
        "pictures, one page. Runs that are not done yet are listed as such.",
    )
    parser.add_argument(
        "folder", metavar="FOLDER", type=Path, help="the study's output_dir, or a record"
    )
    parser.set_defaults(command=report)


def report(arguments: argparse.Namespace) -> int:
    """Raises `UserError` for a folder without a study in it."""
    from ebft.study.report.make import write_report

    say(str(write_report(arguments.folder)))
    return 0
