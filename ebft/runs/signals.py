"""Signals as requests: the step in progress is finished, then the run stops in good order.

Ctrl-C has all the time that the step takes, and a second one stops at once. SIGTERM comes from a
scheduler that kills soon: when the time is over, the step is broken off instead. SIGHUP, of a
terminal that was closed, counts as SIGTERM.
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
"""Seconds between looking whether a step can be broken off now."""


class BrokenOffError(BaseException):
    """The time that SIGTERM left is over. Not an `Exception`: no part is to handle it."""


class StopRequest:
    """Which signal has asked the run to stop, if any."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._breakable = False

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def is_breakable(self) -> bool:
        return self._breakable

    @contextmanager
    def breakable(self) -> Iterator[None]:
        """What is done within it may be broken off, by a `BrokenOffError`."""
        self._breakable = True
        try:
            yield
        finally:
            self._breakable = False


@contextmanager
def stop_on_signals(*, grace: float, at_rest: Callable[[], bool]) -> Iterator[StopRequest]:
    """Turns SIGINT, SIGTERM and SIGHUP into a request.

    The step has `grace` seconds after the latter two; then it is broken off as soon as the policy
    is `at_rest`, not in the middle of an update.
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
        log.warning("%s: stopping after this step or %g s, with a checkpoint", name, grace)

    def on_alarm(_number: int, _frame: FrameType | None) -> None:
        if request.is_breakable and at_rest():
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise BrokenOffError

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
def stop_another(says: str) -> Iterator[StopRequest]:
    """Turns SIGINT, SIGTERM and SIGHUP into a request that is for another process.

    The second SIGINT interrupts at once, as usual.
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
    """The signals that count as SIGTERM; with nohup, a closed terminal is to stop nothing."""
    hung_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return [signal.SIGTERM, signal.SIGHUP] if hung_up else [signal.SIGTERM]
