"""The command line's own help, as a page."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stdout, suppress
from unittest.mock import patch

from docs.generate.markdown import block
from ebft.cli.main import COMMANDS, main

WIDTH = "88"


def commands_page() -> str:
    """`ebft --help` and the help of every subcommand."""
    sections = [f"## ebft {name}\n\n{block(help_text(name))}" for name in COMMANDS]
    return "\n".join(["# Commands\n", block(help_text()), *sections])


def help_text(*command: str) -> str:
    """What `ebft COMMAND --help` prints."""
    printed = io.StringIO()
    # argparse ends the process when it has printed help.
    with redirect_stdout(printed), patch.dict(os.environ, COLUMNS=WIDTH), suppress(SystemExit):
        main([*command, "--help"])
    return printed.getvalue()
