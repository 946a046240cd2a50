"""Starts a run in a process of its own, watches it, and stops it."""

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
"""Seconds between checks of a run."""
GRACE = 60.0
"""Seconds that a run has to stop after SIGINT, and then again after SIGTERM."""


class OutOfTimeError(Exception):
    """A run took longer than its budget and was stopped."""


def run_in_process(
    folder: RunFolder,
    *,
    stop: StopRequest,
    seconds: float | None,
    watch: Callable[[], None],
) -> int:
    """Runs the process and returns its exit status (negative: the signal that ended it).

    The run is stopped, with a checkpoint, when `stop` is requested or after `seconds`; the latter
    raises `OutOfTimeError`. `watch` is called regularly. The process does not outlive this one.
    """
    began = time.monotonic()
    with folder.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ebft.study.worker", str(folder.path)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            # Otherwise a user's file datasets.py would be imported instead of the library.
            env={**os.environ, "PYTHONSAFEPATH": "1"},
            # Otherwise Ctrl-C would reach the run twice: from the terminal and from this process.
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
    """Sends SIGTERM to a run's process and returns its exit status.

    There is no time limit: the scheduler that sent SIGTERM kills both processes when time is up.
    """
    process.terminate()
    return process.wait()


def interrupt(process: subprocess.Popen[bytes]) -> int:
    """Ends a run's process and returns its exit status.

    SIGINT ends it after its step, SIGTERM within its step, with the step before saved. After
    `GRACE` seconds each, the process is killed.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        process.send_signal(number)
        try:
            return process.wait(GRACE)
        except subprocess.TimeoutExpired:
            continue
    process.kill()
    return process.wait()
