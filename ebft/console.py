"""Standard output and error: all output of ebft to a terminal goes through this file.

Output quotes recipes, files and labels, so it is made `printable`, and markup in it is not
interpreted. The reader of a pipe may end before the run does.
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
from tqdm.auto import tqdm

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
    """Prints each line, with line ends in it escaped; to standard output if no file is given."""
    for line in lines:
        print(printable(line), file=file, flush=file is not None)


class Printer(Console):
    """rich's Console, without markup, and without exiting the program on a broken pipe."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **style: Any) -> Text:
        # Before a table's layout, because an escape is longer than the character.
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
        """The values of the bar's format string."""
        shown = super().format_dict
        texts = {key: printable(shown[key] or "") for key in ("prefix", "postfix")}
        return {**shown, **texts}


class BesideBars(logging.Handler):
    """Writes log messages to a stream without breaking a progress bar on it."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        try:
            # A message is one line even if it quotes several; a traceback has several.
            text = printable(self.format(record), keep="\n" if record.exc_info else "")
            Bar.write(text, file=self._stream)
        except OSError:  # the reader has ended, which must not end the run
            give_up(self._stream)
        except Exception:
            self.handleError(record)


def show(what: RenderableType) -> None:
    """Prints without breaking a progress bar. If writing fails, the run continues."""
    try:
        with Bar.external_write_mode():
            Printer().print(what)
    except OSError as error:
        log.warning("standard output: %s; the run continues without output", error.strerror)
        give_up(sys.stdout)


def write_all_letters() -> None:
    """Makes the streams write `\\u2026` for characters that the locale's encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def give_up(stream: TextIO) -> None:
    """Redirects a stream to the null device.

    Otherwise Python would fail to flush it at exit, and change the exit status.
    """
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def prepare_process(stream: TextIO) -> None:
    """Makes this process one that runs recipes: it logs to `stream`, in all letters."""
    log_to(stream)
    write_all_letters()


def log_to(stream: TextIO) -> None:
    """Shows ebft's messages on `stream`, and of torchao, which transformers imports, only errors.

    Importing torchao warns that its C++ extensions do not fit this torch, of which ebft needs none,
    and torch warns about how torchao registers its classes.
    """
    log = logging.getLogger("ebft")
    log.handlers = [BesideBars(stream)]
    log.setLevel(logging.INFO)
    log.propagate = False
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
