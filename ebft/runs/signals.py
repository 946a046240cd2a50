"""Turns signals into requests to stop, so that a run finishes its step and saves a checkpoint.

After Ctrl-C the step may take as long as it needs; a second Ctrl-C stops at once. SIGTERM comes
from a scheduler that will soon kill the process: after a time limit the step is interrupted. SIGHUP
comes when the terminal is closed, and is handled like SIGTERM.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger("ebft")

TERMINATED = 128 + signal.SIGTERM
"""Exit status after SIGTERM, 143, as if the signal itself had ended the process."""
POLL = 0.1
"""Seconds between checks whether the step can be interrupted now."""


class StepInterruptedError(BaseException):
    """The time limit after SIGTERM is over. Not an `Exception`, so that no part handles it."""


class StopRequest:
    """Whether a signal has asked the run to stop, and which."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.is_interruptible = False

    def __bool__(self) -> bool:
        return self.signal is not None

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A context in which `StepInterruptedError` may be raised."""
        self.is_interruptible = True
        try:
            yield
        finally:
            self.is_interruptible = False


@contextmanager
def stop_on_signals(*, grace: float, at_rest: Callable[[], bool]) -> Iterator[StopRequest]:
    """Turns SIGINT, SIGTERM and SIGHUP into a request.

    After SIGTERM and SIGHUP the step has `grace` seconds. Then it is interrupted, but only when the
    policy is `at_rest`, not in the middle of an update.
    """
    request = StopRequest()

    def on_interrupt(_number: int, _frame: FrameType | None) -> None:
        request.signal = signal.SIGINT
        signal.signal(signal.SIGINT, before[signal.SIGINT])
        log.warning("stopping after this step, with a checkpoint; Ctrl-C again stops at once")

    def on_terminate(number: int, _frame: FrameType | None) -> None:
        if request.signal is signal.SIGTERM:
            return
        request.signal = signal.SIGTERM
        signal.setitimer(signal.ITIMER_REAL, grace, POLL)
        name = signal.Signals(number).name
        log.warning("%s: stopping after this step or after %g s, with a checkpoint", name, grace)

    def on_alarm(_number: int, _frame: FrameType | None) -> None:
        if request.is_interruptible and at_rest():
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise StepInterruptedError

    handlers = {
        signal.SIGINT: on_interrupt, signal.SIGALRM: on_alarm,
        **dict.fromkeys(_terminating(), on_terminate),
    }  # fmt: skip
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield request
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stop_child_on_signals(says: str) -> Iterator[StopRequest]:
    """Turns SIGINT, SIGTERM and SIGHUP into a request, which the caller passes to a child process.

    `says` is logged. A second SIGINT interrupts at once, as usual.
    """
    request = StopRequest()

    def on_interrupt(_number: int, _frame: FrameType | None) -> None:
        request.signal = signal.SIGINT
        signal.signal(signal.SIGINT, before[signal.SIGINT])
        log.warning("%s; Ctrl-C again stops at once", says)

    def on_terminate(number: int, _frame: FrameType | None) -> None:
        request.signal = signal.SIGTERM
        log.warning("%s: %s", signal.Signals(number).name, says)

    handlers = {signal.SIGINT: on_interrupt, **dict.fromkeys(_terminating(), on_terminate)}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminating() -> list[signal.Signals]:
    """SIGTERM, and SIGHUP unless it is ignored, as it is with nohup."""
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGTERM] if is_ignored else [signal.SIGTERM, signal.SIGHUP]
