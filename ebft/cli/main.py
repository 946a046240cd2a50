"""`ebft`: the command line. This file parses it, and turns errors into exit statuses.

Exit status: 0 done, 1 the run failed (numbers, memory, disk, engine), 2 a mistake of the user,
130 stopped by Ctrl-C, 143 by SIGTERM: both save a checkpoint, which the same command with
`checkpoint.resume=auto` resumes; 75 a study that has spent its minutes. Only a bug in ebft or
in a plug-in shows a traceback.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import ebft
from ebft.cli import cp, doctor, ls, new_plugin, noise, results, run
from ebft.console import give_up, prepare_process, say
from ebft.errors import EXPLAINED, FailedElsewhereError, UserError
from ebft.printable import printable

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says when a disk, a quota or a limit on files is full."""
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
"""What it says of a file or folder that may not be read or written."""
IN_THE_WAY = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG)
"""What it says where a folder stands in a file's place, or the like."""
COMMANDS = {
    "run": run.add_run,
    "noise": noise.add_parser,
    "eval": run.add_eval,
    "compare": results.add_compare,
    "study": run.add_study,
    "report": results.add_report,
    "validate": run.add_validate,
    "ls": ls.add_parser,
    "cp": cp.add_parser,
    "new-plugin": new_plugin.add_parser,
    "doctor": doctor.add_parser,
}
"""The functions that add the subcommands, in the order of `ebft --help`."""
EPILOG = """\
examples:
  ebft cp ebft_full my_recipe.yaml                copy a recipe to change it
  ebft validate my_recipe.yaml                    find the mistakes in it
  ebft run my_recipe.yaml --dry-run               what it would do, and what that costs
  ebft run my_recipe.yaml sampler.n=8 seed=1      do it, with other values
  ebft noise my_recipe.yaml                       whether its gradient says anything
  ebft ablate recipes/ablations/reward_terms.yaml many runs, compared
  ebft eval recipes/evaluate.yaml model.path=…    measure a model or a checkpoint
  ebft compare runs/sft runs/ebft                 what two runs differ in, with intervals
  ebft ls rewards                                 which rewards there are, with their options
  ebft new-plugin my-features                     a package with a feature map of your own
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line (default: this process's) and returns the exit status."""
    prepare_process(sys.stderr)
    arguments = parse(sys.argv[1:] if argv is None else argv)
    try:
        check_folders()
        status: int = arguments.command(arguments)
    except UserError as error:
        say(*str(error).split("\n"), file=sys.stderr)
        return 2
    except EXPLAINED as error:
        say(*f"error: {error}".split("\n"), file=sys.stderr)
        return 1
    except FailedElsewhereError:
        return 1
    except KeyboardInterrupt:
        say("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        if not only_prints(arguments):
            raise
        give_up(sys.stdout)  # `ebft ls | head`
        return 0
    except OSError as error:
        if (explained := explain(error)) is None:
            raise
        say(f"error: {explained}", file=sys.stderr)
        return 1
    return status


def check_folders() -> None:
    """Raises `UserError` without a working directory, where no relative path leads anywhere, and
    without a home: libraries' caches would be in a folder called ~."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise UserError("the working directory has been deleted; change into another") from error
    if os.path.expanduser("~") == "~":
        raise UserError(
            f"HOME is not set, and no home is known of user {os.getuid()}, where libraries keep "
            "their caches; set the environment variable HOME to a folder that can be written"
        )


def explain(error: OSError) -> str | None:
    """What to say of an error of the system that is no bug; None if it may be one."""
    if error.errno in FULL:
        return (
            f"cannot write {error.filename or 'a file'}: {error.strerror}; what was written before "
            "is whole"
        )
    if error.errno in REFUSED and error.filename is not None:
        return (
            f"cannot use {error.filename}: {error.strerror}; get the permission, or choose another "
            "place"
        )
    if error.errno in IN_THE_WAY and error.filename is not None:
        return (
            f"cannot use {error.filename2 or error.filename}: {error.strerror}; remove what is "
            "there, or choose another place"
        )
    return None


def only_prints(arguments: argparse.Namespace) -> bool:
    """Whether a command has nothing left to do when nobody reads it: it trains and measures
    nothing."""
    return "dry_run" not in arguments or bool(arguments.dry_run)


class Parser(argparse.ArgumentParser):
    """argparse's, whose messages quote the command line."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The parsed command line. Exits with status 2 and the usage if it is not one."""
    parser: argparse.ArgumentParser = Parser(
        prog="ebft",
        description="Energy-Based Fine-Tuning of language models.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ebft {ebft.__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in COMMANDS.values():
        add(subparsers)
    arguments, rest = parser.parse_known_args(argv)
    # argparse gives up on positional arguments that come after an option.
    if rest and ("overrides" not in arguments or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides = [*arguments.overrides, *rest]
    return arguments


if __name__ == "__main__":
    sys.exit(main())
