"""Several processes that speak with one voice: the first prints, and one of those that fail."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout

from ebft.console import say
from ebft.errors import EXPLAINED, FailedElsewhereError, MissingProcessError
from ebft.processes import Launch

log = logging.getLogger("ebft")


@contextmanager
def one_voice(launch: Launch) -> Iterator[None]:
    """Within it only the first process prints, and only one says what ended the run.

    When a process fails, those that wait for it fail too, in ways that say nothing. Raises the
    error with the process's number, `MissingProcessError` if another has not come in time, or
    `FailedElsewhereError` if another has said why.
    """
    if launch.size == 1:
        yield
        return
    # Imports torch, which a mistake in a recipe of one process need not wait for.
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
                # It may be but another process's end, and then torchrun ends this one meanwhile.
                time.sleep(PATIENCE)
            if not watchdog.first_to_fail():
                time.sleep(PATIENCE)  # its end must not come before the other's last words
                raise FailedElsewhereError from error
            say("", file=sys.__stderr__)  # the first process's progress bar has no end of line
            if missing is not None:
                raise MissingProcessError(f"{missing} ({backend_words(error)})") from error
            if isinstance(error, EXPLAINED):
                raise type(error)(*f"process {launch.rank}: {error}".split("\n")) from error
            log.error("process %d failed:", launch.rank)
            raise


def is_timeout(error: Exception) -> bool:
    """Whether it is a collective's that others have not come to, in the backends' own words."""
    from torch.distributed import DistError

    # gloo's have no class of their own, but say where in its sources they are from.
    of_backend = isinstance(error, DistError) or (
        type(error) is RuntimeError and "/gloo/" in str(error)
    )
    return of_backend and "timed out" in str(error).lower()


def backend_words(error: Exception) -> str:
    """What a backend says, without the place in its sources."""
    return str(error).strip().splitlines()[0].rpartition("] ")[2].rstrip(".")
