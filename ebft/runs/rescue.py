"""What is saved when a run is broken off or fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ebft.errors import (
    MemoryShortError,
    NumericalError,
    PolicyIntactError,
    StorageError,
    is_out_of_memory,
)
from ebft.runs.checkpointer import Checkpointer
from ebft.runs.interrupt import BrokenOffError

log = logging.getLogger("ebft")


@contextmanager
def saving_last_step(
    checkpointer: Checkpointer,
    *,
    blame: Callable[[Exception], str],
    memory_short: Callable[[], MemoryShortError],
) -> Iterator[None]:
    """Saves the last whole step when a step is broken off, or fails with the policy intact.

    `blame` says which part an error came from; `memory_short` makes the error of one that is a lack
    of memory.
    """
    try:
        yield
    except BrokenOffError:
        checkpointer.save_last_whole_step()
    except PolicyIntactError:
        _save_after_error(checkpointer)
        raise
    except (NumericalError, StorageError, MemoryShortError):
        raise  # the policy may be bad, or there is no room for it
    except Exception as error:
        _save_after_error(checkpointer)
        if is_out_of_memory(error):
            raise memory_short() from error
        error.add_note(blame(error))
        raise


def _save_after_error(checkpointer: Checkpointer) -> None:
    try:
        if checkpointer.save_last_whole_step():
            log.warning("the policy is intact; %s", checkpointer.newest())
    except StorageError as error:  # the first error is what ended the run
        log.error("%s", error)
