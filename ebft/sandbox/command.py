"""Runs a compiler, an interpreter or a compiled program in an isolated folder, with limits.

Unlike a Python program in its one process (`ebft.sandbox.run`), a command may start processes and
create more files. The kernel refuses the network, signals, namespaces and all files but the
system's programs, which can be read, and the folder. The limits of memory and files are per process
or per file there, so this process also adds them up while the command runs, and stops it.
"""

from __future__ import annotations

import marshal
import math
import os
import platform
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ebft.sandbox import landlock
from ebft.sandbox.run import MIB, PYTHON, SandboxOptions
from ebft.sandbox.syscalls import MACHINES, Counter, counting_filter, seccomp_filter

MOST_FILES = 512
"""Files that a command may create in total."""
PARTS = 4
"""A file has at most this part of the folder's size."""
TICK = 0.05
"""Seconds between two looks at memory, CPU time and files."""
SHOWN = 2000
"""Bytes of the output that are kept, the last ones."""
PAGE = os.sysconf("SC_PAGE_SIZE")
CLOCK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one command, over all its processes: seconds of CPU and of the wall clock, resident
    memory, and the size of its folder, in MiB."""

    cpu_seconds: int
    wall_seconds: float
    memory_mib: int
    scratch_mib: int


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: its exit status (negative: a signal) and the end of its output, or why
    it was stopped."""

    status: int
    output: bytes
    stopped: str = ""


def run_command(
    command: Sequence[str],
    folder: Path,
    limits: Limits,
    options: SandboxOptions,
    *,
    tools: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Runs `command` in `folder`, isolated as `options` say. `tools` are folders that it may read
    and execute, besides those of the system."""
    ours, theirs = socket.socketpair()
    with ours, tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as output:
        with theirs:
            settings = _settings(command, folder, limits, options, tools, environment or {})
            given.write(marshal.dumps(settings))
            given.seek(0)
            process = subprocess.Popen(
                [*PYTHON, str(theirs.fileno())], cwd=folder, env={}, stdin=given,
                stdout=output, stderr=subprocess.STDOUT, pass_fds=[theirs.fileno()],
                start_new_session=True,
            )  # fmt: skip
        try:
            stopped = _watch(process, ours, folder, limits, options)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        size = output.seek(0, os.SEEK_END)
        output.seek(max(size - SHOWN, 0))
        return Ended(process.returncode, output.read(), stopped)


def _settings(
    command: Sequence[str],
    folder: Path,
    limits: Limits,
    options: SandboxOptions,
    tools: Sequence[str],
    environment: Mapping[str, str],
) -> dict[str, Any]:
    isolated = options.isolation == "full"
    settings: dict[str, Any] = {
        "command": list(command),
        "environment": {
            "PATH": "/usr/bin:/bin", "HOME": str(folder), "TMPDIR": str(folder), "LANG": "C.UTF-8",
            **environment,
        },
        "limits": [
            ("CPU", limits.cpu_seconds),
            # Not the address space, of which virtual machines reserve many GiB.
            ("DATA", limits.memory_mib * MIB),
            ("FSIZE", limits.scratch_mib * MIB // PARTS),
            ("NOFILE", 256),
            ("CORE", 0),
        ],
        "parent": os.getpid(),
        "seconds": math.ceil(limits.wall_seconds) + 1,
        "word_length": 0,
        "isolated": isolated,
    }  # fmt: skip
    if isolated:
        known, machine = landlock.version(), MACHINES[platform.machine()]
        settings |= {
            "handled": landlock.handled(known),
            "rules": landlock.rules_of_tools(str(folder), known, tools),
            "filter": seccomp_filter(machine, processes=True),
            "counted": counting_filter(machine, processes=True),
        }
    return settings


def _watch(
    process: subprocess.Popen[bytes],
    channel: socket.socket,
    folder: Path,
    limits: Limits,
    options: SandboxOptions,
) -> str:
    """Waits until the command ends. Returns why it has to be stopped; empty if it has ended."""
    counter: Counter | None = None
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    ended = os.pidfd_open(process.pid)
    poll.register(ended, select.POLLIN)
    until, look = time.monotonic() + limits.wall_seconds, 0.0
    try:
        while True:
            for descriptor, event in poll.poll(1000 * TICK):
                if descriptor == ended:
                    return ""
                if counter is not None and descriptor == counter.listener:
                    if event & select.POLLIN:
                        counter.answer()
                    else:
                        poll.unregister(descriptor)
                    continue
                listener, failure = _receive(channel, options)
                if failure:
                    return f"could not start: {failure}"
                if listener is None:
                    poll.unregister(descriptor)
                else:
                    machine = MACHINES[platform.machine()]
                    counter = Counter(listener, machine, processes=True, files=MOST_FILES)
                    poll.register(listener, select.POLLIN)
            now = time.monotonic()
            if now > until:
                return f"stopped after {limits.wall_seconds:g} s"
            if now > look:
                if reason := _exceeds(process.pid, folder, limits):
                    return reason
                look = now + TICK
    finally:
        os.close(ended)
        if counter is not None:
            counter.close()


def _receive(channel: socket.socket, options: SandboxOptions) -> tuple[int | None, str]:
    """Returns the descriptor on which counted calls are answered, or why isolation failed. Neither
    if the command has started."""
    expected = int(options.isolation == "full")
    try:
        failure, listeners, _, _ = socket.recv_fds(channel, SHOWN, expected)
    except ConnectionResetError:
        return None, ""
    if listeners:
        return listeners[0], ""
    return None, failure.decode(errors="replace")


def _exceeds(session: int, folder: Path, limits: Limits) -> str:
    """Returns which limit the command's processes and files together exceed; empty if none."""
    pages = ticks = 0
    for used in _processes(session):
        pages, ticks = pages + used[0], ticks + used[1]
    if pages * PAGE > limits.memory_mib * MIB:
        return f"stopped: it used more than {limits.memory_mib} MiB of memory"
    if ticks > limits.cpu_seconds * CLOCK:
        return f"stopped: it used up its {limits.cpu_seconds} s of CPU time"
    if _size(folder) > limits.scratch_mib * MIB:
        return f"stopped: its files have more than {limits.scratch_mib} MiB"
    return ""


def _processes(session: int) -> Iterator[tuple[int, int]]:
    """Yields the resident pages and the clock ticks of each process of a session. A process cannot
    leave it: the filter has no setsid."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            text = Path("/proc", name, "stat").read_text()
        except (OSError, UnicodeDecodeError):
            continue
        fields = text.rpartition(") ")[2].split()
        if int(fields[3]) == session:
            # With the time of its children that have ended.
            yield int(fields[21]), sum(map(int, fields[11:15]))


def _size(folder: Path) -> int:
    total = 0
    for path, _, files in os.walk(folder):
        for file in files:
            with suppress(OSError):
                total += os.lstat(os.path.join(path, file)).st_blocks * 512
    return total
