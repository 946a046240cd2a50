"""Ctrl-C as a request: the step in progress is finished, then the run stops in good order."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger("ebft")


class StopRequest:
    """Whether somebody has asked the run to stop."""

    def __init__(self) -> None:
        self.made = False

    def __bool__(self) -> bool:
        return self.made


@contextmanager
def stop_on_interrupt(
    says: str = "stopping after this step, with a checkpoint",
) -> Iterator[StopRequest]:
    """Turns the first SIGINT into a request; the second interrupts at once, as usual."""
    request = StopRequest()

    def on_interrupt(_number: int, _frame: FrameType | None) -> None:
        request.made = True
        signal.signal(signal.SIGINT, before)
        log.warning("%s; Ctrl-C again stops at once", says)

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield request
    finally:
        signal.signal(signal.SIGINT, before)
