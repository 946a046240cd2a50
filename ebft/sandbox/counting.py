"""Counts the threads that a program starts, and the files that it creates.

The system's own limits are per file, or for all threads of a user, or not for the superuser, and a
file without a name is in no folder. So a seccomp filter of the program
(`syscalls.counting_filter`) makes each such call wait until this process has counted it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from contextlib import suppress

from ebft.sandbox.syscalls import CLONE, Machine

MOST_THREADS = 256
MOST_FILES = 64
"""Files that a program may create in total, including deleted ones."""

RECEIVE, SEND = 0xC0502100, 0xC0182101
GO_ON = 1
"""`SECCOMP_IOCTL_NOTIF_RECV`, `SECCOMP_IOCTL_NOTIF_SEND`, `SECCOMP_USER_NOTIF_FLAG_CONTINUE`."""
CALL = struct.Struct("=QIIiIQ6Q")
ANSWER = struct.Struct("=QqiI")
"""The kernel's `struct seccomp_notif` and `struct seccomp_notif_resp`."""


class Counter:
    """Answers a program's counted calls, which arrive on the filter's `listener`."""

    def __init__(self, listener: int, machine: Machine) -> None:
        self.listener = listener
        self._clone = CLONE[machine.column]
        self._threads, self._files = MOST_THREADS, MOST_FILES

    def answer(self) -> None:
        """Lets the waiting call continue or fail. To be called when `listener` is readable."""
        call = bytearray(CALL.size)
        with suppress(FileNotFoundError):  # the program has ended
            fcntl.ioctl(self.listener, RECEIVE, call)
            name, _, _, number, *_ = CALL.unpack(call)
            error = self._count(number)
            fcntl.ioctl(self.listener, SEND, ANSWER.pack(name, 0, -error, 0 if error else GO_ON))

    def _count(self, number: int) -> int:
        """Returns the error number with which call `number` fails; 0 if it may continue."""
        if number == self._clone:
            self._threads -= 1
            return errno.EAGAIN if self._threads < 0 else 0
        self._files -= 1
        return errno.EDQUOT if self._files < 0 else 0

    def close(self) -> None:
        """Makes every later counted call fail."""
        os.close(self.listener)
