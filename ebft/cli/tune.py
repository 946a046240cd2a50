"""`tune`: runs ebft's recipes, and passes all other commands to torchtune.

torchtune installs a script of the same name, whose syntax is `tune run RECIPE --config FILE`. It
accepts no YAML file as RECIPE, so a YAML file in that place can be given to ebft without a
conflict. Without torchtune, `tune` runs recipes of ebft only.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

from ebft.console import say
from ebft.distributed.torchrun import torchrun
from ebft.parts.packages import missing

YAML = (".yaml", ".yml")


class OurRun(NamedTuple):
    """The parsed command `tune run [torchrun options] FILE.yaml [more]`."""

    torchrun: list[str]
    file: str
    rest: list[str]


def main() -> int:
    """Runs this process's command line and returns the exit status."""
    ours = parse(sys.argv[1:])
    if ours is None:
        return torchtune()
    command = ["run", ours.file, *ours.rest]
    if ours.torchrun:
        return torchrun(ours.torchrun, command)
    from ebft.cli.main import main as ebft

    return ebft(command)


def parse(argv: Sequence[str]) -> OurRun | None:
    """Parses a command of ebft; None for a command of torchtune."""
    if len(argv) < 2 or argv[0] != "run":
        return None
    after_run = list(argv[1:])
    first = 0
    if after_run[0].startswith("-"):
        found = _script_index(after_run)
        if found is None:
            return None
        first = found
    if not after_run[first].endswith(YAML):
        return None
    return OurRun(after_run[:first], after_run[first], after_run[first + 1 :])


def _script_index(arguments: list[str]) -> int | None:
    """The index after torchrun's options. Only its parser knows which of them take a value."""
    from torch.distributed.run import get_args_parser

    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            parsed = get_args_parser().parse_args(arguments)
    except SystemExit:  # --help or a mistake, which torchtune reports
        return None
    return len(arguments) - len(parsed.training_script_args) - 1


def torchtune() -> int:
    """Runs torchtune's command line with the unchanged sys.argv.

    Returns exit status 2 if torchtune is not installed.
    """
    if (lacking := missing("torchtune")) is not None:
        given = " ".join(["tune", *sys.argv[1:]])
        say(f"{given}: ebft has only `tune run FILE.yaml`; the rest {lacking}", file=sys.stderr)
        return 2
    logging.getLogger("torchao").setLevel(logging.ERROR)
    from torchtune._cli.tune import main as tune

    tune()
    return 0


if __name__ == "__main__":
    sys.exit(main())
