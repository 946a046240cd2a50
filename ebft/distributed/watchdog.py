"""A watchdog in each of several processes: where it is, and whether the run has ended elsewhere.

A process that waits for others learns after a time that they do not come, but not which of them is
missing, nor where that one is. So each writes its place down where all can read it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from types import FrameType

from ebft.console import say
from ebft.distributed.rendezvous import meet, open_store
from ebft.errors import first_line
from ebft.processes import Launch

EVERY = 2
"""Seconds between two looks."""
LATEST = timedelta(minutes=30)
"""For a process to come to the others: machines may load Python and torch at different speeds."""
PATIENCE = 10
"""Seconds for a process to end by itself when another has failed."""


class Watchdog:
    """A thread beside the one that trains; what it notes, torchrun keeps.

    Ends the process when torchrun itself has ended, or when another process has failed and this
    one does not notice.
    """

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._store = open_store(timedelta(seconds=60))
        self._start = meet(self._store, launch, LATEST)
        self._trains = threading.main_thread()
        self._parent = os.getppid()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread: Python aborts on its way out if one is then inside the store's code."""
        self._done.set()
        self._thread.join()

    def first_to_fail(self) -> bool:
        """Whether no other process of this run has asked before."""
        return bool(self._store.add(self._key("failures"), 1) == 1)

    def missing(self) -> str:
        """Which processes do not wait as this one has, and where they are instead."""
        launch = self._launch
        self._store.set(self._key(f"waits/{launch.rank}"), "")
        time.sleep(2 * EVERY)
        missing = [
            rank
            for rank in range(launch.size)
            if not self._store.check([self._key(f"waits/{rank}")])
        ]
        if not missing:
            return "all processes have waited for each other: is the network whole?"
        where = "; ".join(f"process {rank} is {self._place_of(rank)}" for rank in missing)
        return f"the other processes timed out waiting: {where}"

    def _place_of(self, rank: int) -> str:
        key = self._key(f"place/{rank}")
        if not self._store.check([key]):
            return "nowhere to be found"
        place: bytes = self._store.get(key)
        return place.decode()

    def _key(self, name: str) -> str:
        return f"ebft/{self._start}/{name}"

    def _look(self) -> None:
        try:
            while not self._done.is_set() and os.getppid() == self._parent:
                frame = sys._current_frames().get(self._trains.ident or 0)
                if frame is not None:
                    self._store.set(self._key(f"place/{self._launch.rank}"), place(frame))
                if self._store.check([self._key("failures")]):
                    self._done.wait(3 * PATIENCE)
                    break
                self._done.wait(EVERY)
        except RuntimeError as error:
            self._done.wait(EVERY)
            # Without torchrun here there is nothing to say: it was ended, and this process with it.
            if not self._done.is_set() and os.getppid() == self._parent:
                say(
                    f"error: process {self._launch.rank}: cannot reach torchrun's store at "
                    f"{self._store.host}:{self._store.port} any more: {first_line(error)}",
                    file=sys.__stderr__,
                )  # fmt: skip
        if not self._done.is_set():
            os._exit(1)


def place(frame: FrameType) -> str:
    """Where a thread is: its function, file and line, outside of torch and of Python's own."""
    outermost: FrameType | None = frame
    while outermost is not None and is_library(outermost.f_code.co_filename):
        outermost = outermost.f_back
    shown = outermost or frame
    return f"in {shown.f_code.co_name}, {shown.f_code.co_filename}:{shown.f_lineno}"


def is_library(file: str) -> bool:
    """Whether a file is of torch, or of Python's standard library."""
    path = Path(file)
    return "torch" in path.parts or path.is_relative_to(Path(os.__file__).parent) or file[:1] == "<"
