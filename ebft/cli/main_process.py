"""The output of a run in several processes: the first one prints, and one reports a failure."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout

from ebft.console import say
from ebft.distributed.processes import Launch
from ebft.errors import EXPLAINED, FailedElsewhereError, MissingProcessError

log = logging.getLogger("ebft")


@contextmanager
def main_process_output(launch: Launch) -> Iterator[None]:
    """A context in which only the first process prints, and only one process reports an error.

    When a process fails, those that wait for it fail too, with errors that explain nothing. Raises
    the error with the number of the process, `MissingProcessError` if another process did not
    arrive in time, or `FailedElsewhereError` if another process reports the failure.
    """
    if launch.size == 1:
        yield
        return
    # Imports torch, which takes seconds and which a run in one process may not need.
    from ebft.distributed.watchdog import PATIENCE, Watchdog

    watchdog = Watchdog(launch)
    with ExitStack() as stack:
        stack.callback(watchdog.close)
        if launch.rank > 0:
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(redirect_stdout(nowhere))
            stack.enter_context(redirect_stderr(nowhere))
            log.setLevel(logging.ERROR)
        try:
            yield
        except Exception as error:
            missing = watchdog.missing() if is_timeout(error) else None
            if missing is None and not isinstance(error, EXPLAINED):
                # Another process may have failed first; then torchrun ends this one while it waits.
                time.sleep(PATIENCE)
            if not watchdog.first_to_fail():
                time.sleep(PATIENCE)  # so that the other process can report its error first
                raise FailedElsewhereError from error
            say("", file=sys.__stderr__)  # ends the line of the first process's progress bar
            if missing is not None:
                raise MissingProcessError(f"{missing} ({backend_words(error)})") from error
            if isinstance(error, EXPLAINED):
                raise type(error)(*f"process {launch.rank}: {error}".split("\n")) from error
            log.error("process %d failed:", launch.rank)
            raise


def is_timeout(error: Exception) -> bool:
    """Whether a collective timed out because other processes did not join it."""
    from torch.distributed import DistError

    # gloo has no error class of its own, but its messages name its source files.
    of_backend = isinstance(error, DistError) or (
        type(error) is RuntimeError and "/gloo/" in str(error)
    )
    return of_backend and "timed out" in str(error).lower()


def backend_words(error: Exception) -> str:
    """The message of a backend without the position in its source files."""
    return str(error).strip().splitlines()[0].rpartition("] ")[2].rstrip(".")
