"""Standard output and error of a run, whose reader may be gone before it ends."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from tqdm import tqdm

if TYPE_CHECKING:
    from rich.console import RenderableType

log = logging.getLogger("ebft")


class Printer(Console):
    """rich's, which would leave the program when nobody reads what it prints."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def show(what: RenderableType) -> None:
    """Prints without breaking a progress bar. That it cannot be written ends no run."""
    try:
        with tqdm.external_write_mode():
            Printer().print(what)
    except OSError as error:
        log.warning("standard output: %s; the run goes on, and prints nothing more", error.strerror)
        give_up(sys.stdout)


def write_all_letters() -> None:
    """Writes as `\\u2026` what this process's locale has no letter for, rather than failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def give_up(stream: TextIO) -> None:
    """Sends what is left in a stream, and what comes, nowhere.

    Python would fail again on its way out otherwise, with a status of its own.
    """
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
