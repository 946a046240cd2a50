"""The command `ebft`: parses the command line, and turns errors into exit statuses.

Exit status: 0: done; 1: the run failed (numbers, memory, disk, engine); 2: a user's mistake;
130: stopped by Ctrl-C; 143: stopped by SIGTERM; 75: `budget.minutes` of a study is spent. After 130
and 143 there is a checkpoint, and the same command with `checkpoint.resume=auto` resumes the run.
Only bugs in ebft or in a plug-in show a traceback.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from ebft.cli import cp, doctor, ls, new_plugin, noise, results, run, sample
from ebft.console import give_up, prepare_process, say
from ebft.errors import EXPLAINED, FailedElsewhereError, UserError
from ebft.parts.version import __version__
from ebft.printable import printable

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers for a full disk, an exceeded quota or an exceeded file size."""
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
"""Error numbers for a missing permission."""
IN_THE_WAY = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG)
"""Error numbers for paths that cannot be used, e.g. a folder in place of a file."""
COMMANDS = {
    "run": run.add_run,
    "noise": noise.add_parser,
    "eval": run.add_eval,
    "sample": sample.add_parser,
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
  ebft run my_recipe.yaml --dry-run               show the resolved recipe and its cost
  ebft run my_recipe.yaml sampler.n=8 seed=1      run it, with other values
  ebft noise my_recipe.yaml                       measure what its gradient says
  ebft ablate recipes/ablations/reward_terms.yaml run many recipes and compare them
  ebft eval recipes/evaluate.yaml model.path=…    measure a model or a checkpoint
  ebft sample runs/mine                           show what it writes, beside its base model
  ebft compare runs/sft runs/ebft                 compare two runs, with intervals
  ebft ls rewards                                 list the rewards, with their options
  ebft new-plugin my-features                     create a package with your own feature map
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
    """Raises `UserError` if the working directory was deleted, or if there is no home folder, as
    libraries would put their caches into a folder called ~."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise UserError("the working directory has been deleted; change to another") from error
    if os.path.expanduser("~") == "~":
        raise UserError(
            f"HOME is not set, and user {os.getuid()} has no home folder, where libraries keep "
            "their caches; set the environment variable HOME to a writable folder"
        )


def explain(error: OSError) -> str | None:
    """Explains an error of the operating system; None if it may be a bug."""
    if error.errno in FULL:
        return (
            f"cannot write {error.filename or 'a file'}: {error.strerror}; files that were written "
            "before are complete"
        )
    if error.errno in REFUSED and error.filename is not None:
        return (
            f"cannot use {error.filename}: {error.strerror}; change its permissions, or choose "
            "another path"
        )
    if error.errno in IN_THE_WAY and error.filename is not None:
        return (
            f"cannot use {error.filename2 or error.filename}: {error.strerror}; remove what is "
            "there, or choose another path"
        )
    return None


def only_prints(arguments: argparse.Namespace) -> bool:
    """Whether a command only prints, so that it can end when its output is closed."""
    return "dry_run" not in arguments or bool(arguments.dry_run)


class Parser(argparse.ArgumentParser):
    """A parser that keeps the line breaks of help texts. Its error messages are printable.

    argparse makes the parsers of subcommands from the same class.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parses the command line. Exits with status 2 and the usage if it cannot be parsed."""
    parser: argparse.ArgumentParser = Parser(
        prog="ebft",
        description="Energy-Based Fine-Tuning of language models.",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"ebft {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in COMMANDS.values():
        add(subparsers)
    arguments, rest = parser.parse_known_args(argv)
    # argparse does not parse positional arguments after an option.
    if rest and ("overrides" not in arguments or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides = [*arguments.overrides, *rest]
    return arguments


if __name__ == "__main__":
    sys.exit(main())
