"""Standard output and error: everything that ebft shows on a terminal goes through here.

What it shows quotes recipes, files and labels, so all of it is made `printable`, and nothing in it
is taken for markup. The reader may be gone before a run ends.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.segment import Segment
from tqdm import tqdm

from ebft.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import ConsoleOptions, RenderableType
    from rich.text import Text

    Tqdm = tqdm[Any]
else:
    Tqdm = tqdm

log = logging.getLogger("ebft")


def say(*lines: str, file: TextIO | None = None) -> None:
    """Prints each of the lines, which stays one; on standard output if no file is given."""
    for line in lines:
        print(printable(line), file=file, flush=file is not None)


class Printer(Console):
    """rich's, which would take parts of a text for markup, and leave the program when nobody reads
    what it prints."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **style: Any) -> Text:
        # Before a table is laid out: an escape is longer than what it stands for.
        return super().render_str(printable(text, keep="\n"), **style)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text, keep="\n"), style, control)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


class Bar(Tqdm):
    """tqdm's progress bar."""

    @property
    def format_dict(self) -> MutableMapping[str, Any]:
        """What the bar is put together from."""
        shown = super().format_dict
        texts = {key: printable(shown[key] or "") for key in ("prefix", "postfix")}
        return {**shown, **texts}


class BesideBars(logging.Handler):
    """Writes messages to a stream without breaking a progress bar that is on it."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        try:
            # A message is a line, whatever is quoted in it; a traceback is several.
            text = printable(self.format(record), keep="\n" if record.exc_info else "")
            Bar.write(text, file=self._stream)
        except OSError:  # its reader is gone: no reason for a run to end
            give_up(self._stream)
        except Exception:
            self.handleError(record)


def show(what: RenderableType) -> None:
    """Prints without breaking a progress bar. That it cannot be written ends no run."""
    try:
        with Bar.external_write_mode():
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


def prepare_process(stream: TextIO) -> None:
    """Makes this process one that runs recipes: it logs to `stream`, in all letters."""
    log_to(stream)
    write_all_letters()


def log_to(stream: TextIO) -> None:
    """Shows ebft's messages on `stream`, and of torchao's only errors.

    Importing torchao warns that its C++ extensions do not fit this torch; ebft needs none of them.
    """
    log = logging.getLogger("ebft")
    log.handlers = [BesideBars(stream)]
    log.setLevel(logging.INFO)
    log.propagate = False
    logging.getLogger("torchao").setLevel(logging.ERROR)
