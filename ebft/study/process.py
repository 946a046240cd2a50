"""Starting a run in a process of its own, watching it, and stopping it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from ebft.runs.signals import StopRequest
from ebft.study.folder import RunFolder

POLL = 0.5
"""Seconds between looks at a run."""
GRACE = 60.0
"""Seconds that a run has to stop at the end of its step, and then in the middle of it."""


class OutOfTimeError(Exception):
    """A run took longer than its budget and was stopped."""


def run_in_process(
    folder: RunFolder,
    *,
    stop: StopRequest,
    seconds: float | None,
    watch: Callable[[], None],
) -> int:
    """The exit status of the run's process (negative: the signal that ended it).

    It stops in good order when `stop` is asked for, or after `seconds`, which raises
    `OutOfTimeError`. `watch` is called now and then. The process does not outlive this one.
    """
    began = time.monotonic()
    with folder.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ebft.study.worker", str(folder.path)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            # Else a file of the user's that is called datasets.py would be taken for the library.
            env={**os.environ, "PYTHONSAFEPATH": "1"},
            # Ctrl-C in a terminal reaches every process of the group, and this one passes it on.
            start_new_session=True,
        )
    try:
        while (status := _wait(process)) is None:
            watch()
            if stop:
                return (terminate if stop.signal is signal.SIGTERM else interrupt)(process)
            if seconds is not None and time.monotonic() - began > seconds:
                interrupt(process)
                raise OutOfTimeError
        return status
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        assert process.stdin is not None
        process.stdin.close()


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(POLL)
    except subprocess.TimeoutExpired:
        return None


def terminate(process: subprocess.Popen[bytes]) -> int:
    """Passes SIGTERM on to a run's process, and returns its exit status: how long there is to save
    is for the scheduler to say, which kills both."""
    process.terminate()
    return process.wait()


def interrupt(process: subprocess.Popen[bytes]) -> int:
    """Ends a run's process, and returns its exit status: at the end of its step, else in the middle
    of it, where SIGTERM still saves the step before, else at once."""
    for number in (signal.SIGINT, signal.SIGTERM):
        process.send_signal(number)
        try:
            return process.wait(GRACE)
        except subprocess.TimeoutExpired:
            continue
    process.kill()
    return process.wait()
