"""The system calls that a program may make, and how often: seccomp filters that allow little but
computing.

Calls that are not listed fail with EPERM: processes, signals, sockets, ptrace, mounts, owners and
modes of files, calls of newer kernels. An incomplete list of allowed calls is safe.
`ebft.sandbox.landlock` restricts which files may be opened.

`Counter` counts the threads that a program starts, and the files that it creates. The system's own
limits are per file, or for all threads of a user, or not for the superuser, and a file without a
name is in no folder. So a second filter (`counting_filter`) makes each such call wait until this
process has counted it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

CALLS: dict[str, tuple[int | None, int | None]] = {
    # Numbers on x86-64 and aarch64; aarch64 lacks older calls that newer ones replace.
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66),
    "pread64": (17, 67), "pwrite64": (18, 68),
    "close": (3, 57), "close_range": (436, 436), "stat": (4, None), "fstat": (5, 80),
    "lstat": (6, None), "newfstatat": (262, 79), "statx": (332, 291), "access": (21, None),
    "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, None),
    "readlinkat": (267, 78), "getcwd": (79, 17), "chdir": (80, 49), "getdents64": (217, 61),
    "lseek": (8, 62), "ftruncate": (77, 46), "unlink": (87, None), "unlinkat": (263, 35),
    "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276), "fsync": (74, 82),
    "fdatasync": (75, 83), "flock": (73, 32), "dup": (32, 23), "dup2": (33, None),
    "dup3": (292, 24),
    "pipe": (22, None), "pipe2": (293, 59), "poll": (7, None), "ppoll": (271, 73),
    "select": (23, None), "pselect6": (270, 72), "epoll_create1": (291, 20), "epoll_ctl": (233, 21),
    "epoll_wait": (232, None), "epoll_pwait": (281, 22), "eventfd2": (290, 19),
    "recvfrom": (45, 207),
    "mmap": (9, 222), "munmap": (11, 215), "mprotect": (10, 226), "mremap": (25, 216),
    "madvise": (28, 233), "brk": (12, 214), "futex": (202, 98), "set_robust_list": (273, 99),
    "rseq": (334, 293), "membarrier": (324, 283), "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123), "gettid": (186, 178), "getpid": (39, 172),
    "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176),
    "getegid": (108, 177), "umask": (95, 166), "uname": (63, 160), "sysinfo": (99, 179),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132), "setitimer": (38, 103), "getitimer": (36, 102), "alarm": (37, None),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101), "gettimeofday": (96, 169), "time": (201, None), "times": (100, 153),
    "getrusage": (98, 165), "getrlimit": (97, 163), "getrandom": (318, 278),
    "restart_syscall": (219, 128), "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip
OF_PROCESSES: dict[str, tuple[int | None, int | None]] = {
    # What compilers, their linkers, shells and virtual machines need besides.
    "execve": (59, 221), "wait4": (61, 260), "waitid": (247, 95), "arch_prctl": (158, None),
    "set_tid_address": (218, 96), "getpgrp": (111, None), "getpgid": (121, 155),
    "getsid": (124, 156), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None),
    "fchdir": (81, 50), "fadvise64": (221, 223), "fallocate": (285, 47),
    "copy_file_range": (326, 285), "sendfile": (40, 71), "preadv": (295, 69), "pwritev": (296, 70),
    "sched_getparam": (143, 121), "sched_getscheduler": (145, 120), "getcpu": (309, 168),
    "mincore": (27, 232), "getresuid": (118, 148), "getresgid": (120, 150), "getgroups": (115, 158),
    "statfs": (137, 43), "fstatfs": (138, 44), "rt_sigtimedwait": (128, 137),
    "rt_sigsuspend": (130, 133), "pause": (34, None),
}  # fmt: skip
FORK, VFORK, PRCTL = (57, None), (58, None), (157, 167)
NAMESPACES = 0x7E020000
"""`CLONE_NEWNS` to `CLONE_NEWNET`: a process gets no namespace of its own."""
PRCTL_OPTIONS = (15, 16)
"""PR_SET_NAME, PR_GET_NAME."""
CLONE, CLONE3, FCNTL, IOCTL, PRLIMIT = (56, 220), (435, 435), (72, 25), (16, 29), (302, 261)
SOCKETPAIR, SENDTO, OPEN, OPENAT = (53, 199), (44, 206), (2, None), (257, 56)

THREAD_FLAGS = (0x3D0F00, 0x7D0F00)
"""The flags with which glibc and musl start a thread. Threads share their open files; else
`RLIMIT_NOFILE` would apply to each thread."""
FCNTL_COMMANDS = (0, 1, 2, 3, 4, 5, 6, 7, 1030)
"""F_DUPFD, F_GETFD … F_SETLKW, F_DUPFD_CLOEXEC; not F_SETOWN, which sends signals."""
IOCTL_COMMANDS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX."""
UNIX = 1
STREAMS = (0x1, 0x801, 0x80001, 0x80801)
"""SOCK_STREAM, with or without SOCK_NONBLOCK and SOCK_CLOEXEC: asyncio's own pipe. A datagram
socket could send to any other on the machine, which Landlock does not restrict."""
PACKETS = 0x80005
"""SOCK_SEQPACKET and SOCK_CLOEXEC, with which Rust starts a process; connected as a stream is."""

ACCESS_MODE, CREATE, TRUNCATE, UNNAMED = 3, 0x40, 0x200, 0x400000
"""Bits of `open`'s flags, `O_ACCMODE` to `__O_TMPFILE`."""
OPENING = ((ACCESS_MODE, 1), (ACCESS_MODE, 2), (ACCESS_MODE | TRUNCATE, 0))
"""Bits of `open`'s flags and their allowed values: write, read and write, or read without
truncating the file, which Landlock allows before Linux 6.2. Access mode 3 is refused: it needs no
right in Landlock, but can lock the file, or start a device."""

LOAD, EQUAL, ANY_BIT, AND, RETURN = 0x20, 0x15, 0x45, 0x54, 0x06
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16
"""Offsets in the kernel's `struct seccomp_data`; an argument has 8 bytes, the low word first."""
ALLOW, ERRNO, ASK = 0x7FFF0000, 0x00050000, 0x7FC00000

MOST_THREADS = 256
MOST_FILES = 64
"""Files that a program may create in total, including deleted ones."""

RECEIVE, SEND = 0xC0502100, 0xC0182101
GO_ON = 1
"""`SECCOMP_IOCTL_NOTIF_RECV`, `SECCOMP_IOCTL_NOTIF_SEND`, `SECCOMP_USER_NOTIF_FLAG_CONTINUE`."""
CALL = struct.Struct("=QIIiIQ6Q")
ANSWER = struct.Struct("=QqiI")
"""The kernel's `struct seccomp_notif` and `struct seccomp_notif_resp`."""


class Machine(NamedTuple):
    """A processor: the kernel's audit number of its architecture, and its column in `CALLS`."""

    audit: int
    column: int


MACHINES = {"x86_64": Machine(0xC000003E, 0), "aarch64": Machine(0xC00000B7, 1)}
"""By `platform.machine()`."""

Instruction = tuple[int, int, int, int]


def seccomp_filter(machine: Machine, *, processes: bool = False) -> bytes:
    """Returns the filter as an array of the kernel's `struct sock_filter`.

    With `processes`, the calls of compilers and virtual machines are allowed too.
    """
    return _pack(_program(machine, processes=processes))


def counting_filter(machine: Machine, *, processes: bool = False) -> bytes:
    """Returns a filter that asks its listener before a thread or a process starts, or a file may be
    created.

    It is added to `seccomp_filter`, whose refusals take precedence.
    """
    return _pack(_counted(machine, processes=processes))


def _pack(program: Iterator[Instruction]) -> bytes:
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


def _opening(machine: Machine) -> list[tuple[int, int]]:
    """Returns the calls that open a file, each with the index of its flags argument."""
    calls = ((OPEN[machine.column], 1), (OPENAT[machine.column], 2))
    return [(number, flags) for number, flags in calls if number is not None]


def starting(machine: Machine, *, processes: bool) -> list[int]:
    """Returns the calls that start a thread or, with `processes`, a process."""
    calls = (CLONE, FORK, VFORK) if processes else (CLONE,)
    return [number for one in calls if (number := one[machine.column]) is not None]


def _counted(machine: Machine, *, processes: bool) -> Iterator[Instruction]:
    yield LOAD, 0, 0, NUMBER
    for number in starting(machine, processes=processes):
        yield EQUAL, 0, 1, number
        yield RETURN, 0, 0, ASK
    for number, flags in _opening(machine):
        yield from _if(number, flags, [(ANY_BIT, 0, 1, CREATE | UNNAMED)], ASK)
    yield RETURN, 0, 0, ALLOW


def _program(machine: Machine, *, processes: bool) -> Iterator[Instruction]:
    refuse = (RETURN, 0, 0, ERRNO | errno.EPERM)
    yield LOAD, 0, 0, ARCHITECTURE
    yield EQUAL, 1, 0, machine.audit
    yield refuse
    yield LOAD, 0, 0, NUMBER  # x32's have an extra bit, so they match no number
    allowed = CALLS | OF_PROCESSES if processes else CALLS
    for numbers in allowed.values():
        if (number := numbers[machine.column]) is not None:
            yield EQUAL, 0, 1, number
            yield RETURN, 0, 0, ALLOW
    # The C library falls back to `clone` if `clone3` does not exist.
    yield EQUAL, 0, 1, CLONE3[machine.column]
    yield RETURN, 0, 0, ERRNO | errno.ENOSYS
    for thread in THREAD_FLAGS:
        yield from _if(CLONE[machine.column], 0, [(EQUAL, 0, 1, thread)])
    if processes:
        for number in starting(machine, processes=True):
            whole = [(AND, 0, 0, NAMESPACES), (EQUAL, 0, 1, 0)] if number in CLONE else []
            yield from _if(number, 0, whole)
        for option in PRCTL_OPTIONS:
            yield from _if(PRCTL[machine.column], 0, [(EQUAL, 0, 1, option)])
    for number, flags in _opening(machine):
        for mask, value in OPENING:
            yield from _if(number, flags, [(AND, 0, 0, mask), (EQUAL, 0, 1, value)])
    for call, argument, commands in ((FCNTL, 1, FCNTL_COMMANDS), (IOCTL, 1, IOCTL_COMMANDS)):
        for command in commands:
            yield from _if(call[machine.column], argument, [(EQUAL, 0, 1, command)])
    for kind in (*STREAMS, PACKETS) if processes else STREAMS:
        pair = [(EQUAL, 0, 3, UNIX), (LOAD, 0, 0, ARGUMENTS + 8), (EQUAL, 0, 1, kind)]
        yield from _if(SOCKETPAIR[machine.column], 0, pair)
    # Reading a limit without setting it; sending only to the other end, without an address.
    yield from _if(PRLIMIT[machine.column], 2, _null(2))
    yield from _if(SENDTO[machine.column], 4, _null(4))
    yield refuse


def _null(argument: int) -> list[Instruction]:
    """Returns tests that both halves of an argument are 0, a null pointer."""
    return [(EQUAL, 0, 3, 0), (LOAD, 0, 0, ARGUMENTS + 8 * argument + 4), (EQUAL, 0, 1, 0)]


def _if(
    number: int, argument: int, tests: list[Instruction], then: int = ALLOW
) -> Iterator[Instruction]:
    """Yields instructions that return `then` if the argument of call `number` passes all tests."""
    yield EQUAL, 0, len(tests) + 2, number
    yield LOAD, 0, 0, ARGUMENTS + 8 * argument
    yield from tests
    yield RETURN, 0, 0, then
    yield LOAD, 0, 0, NUMBER


class Counter:
    """Answers a program's counted calls, which arrive on the filter's `listener`."""

    def __init__(
        self, listener: int, machine: Machine, *, processes: bool = False, files: int = MOST_FILES
    ) -> None:
        self.listener = listener
        self._starting = starting(machine, processes=processes)
        self._threads, self._files = MOST_THREADS, files

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
        if number in self._starting:
            self._threads -= 1
            return errno.EAGAIN if self._threads < 0 else 0
        self._files -= 1
        return errno.EDQUOT if self._files < 0 else 0

    def close(self) -> None:
        """Makes every later counted call fail."""
        os.close(self.listener)
