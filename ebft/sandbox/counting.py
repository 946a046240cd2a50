"""How many threads a program may start, and how many files it may create: counted here.

The system's own limits are for one file, for all of a user's threads, or not for the superuser,
and a file without a name is in no folder where one could look. So a filter of the program's
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
"""Over a program's life, whether they still are there or not."""

RECEIVE, SEND = 0xC0502100, 0xC0182101
GO_ON = 1
"""`SECCOMP_IOCTL_NOTIF_RECV`, `SECCOMP_IOCTL_NOTIF_SEND`, `SECCOMP_USER_NOTIF_FLAG_CONTINUE`."""
CALL = struct.Struct("=QIIiIQ6Q")
ANSWER = struct.Struct("=QqiI")
"""The kernel's `struct seccomp_notif` and `struct seccomp_notif_resp`."""


class Counter:
    """Answers a program's counted calls, which it learns of from the filter's `listener`."""

    def __init__(self, listener: int, machine: Machine) -> None:
        self.listener = listener
        self._clone = CLONE[machine.column]
        self._threads, self._files = MOST_THREADS, MOST_FILES

    def answer(self) -> None:
        """Lets the call that waits go on, or fail. To be called when `listener` is readable."""
        call = bytearray(CALL.size)
        with suppress(FileNotFoundError):  # the program has gone
            fcntl.ioctl(self.listener, RECEIVE, call)
            name, _, _, number, *_ = CALL.unpack(call)
            error = self._count(number)
            fcntl.ioctl(self.listener, SEND, ANSWER.pack(name, 0, -error, 0 if error else GO_ON))

    def _count(self, number: int) -> int:
        """The error that call `number` fails with; 0 if it may go on."""
        if number == self._clone:
            self._threads -= 1
            return errno.EAGAIN if self._threads < 0 else 0
        self._files -= 1
        return errno.EDQUOT if self._files < 0 else 0

    def close(self) -> None:
        """From now on every counted call fails."""
        os.close(self.listener)
