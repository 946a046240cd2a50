"""Runs a generated Python program in an isolated process of its own, and returns how it ended.

`SandboxOptions` is the `sandbox:` section of parts that run generated programs.
"""

from __future__ import annotations

import errno
import marshal
import math
import os
import platform
import secrets
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt

from ebft.errors import SandboxError
from ebft.options import Options
from ebft.sandbox import landlock
from ebft.sandbox.syscalls import MACHINES, MOST_FILES, Counter, counting_filter, seccomp_filter

WORD = 16
"""Bytes of the secret word that means that a program ran to its end."""
MOST_REPORTED = 2048
MIB = 2**20
A_DAY = 24 * 3600

# -S, -s, -P: no site-packages, no folder to import from; -B: no compiled files, which would count
# as the program's; UTF-8 in every locale. The hash seed is fixed so that a program that prints a
# set always gets the same result.
CHILD = str(Path(__file__).with_name("child.py"))
PYTHON = (sys.executable, "-S", "-s", "-P", "-B", "-X", "utf8", CHILD)
ENVIRONMENT = {"PYTHONHASHSEED": "0"}


class SandboxOptions(Options):
    """How generated programs are run: one process each, with limits, and isolated."""

    isolation: Literal["full", "limits"] = Field(
        "full",
        description="full: no network, no other processes, at most 256 threads, only a temporary "
        "folder (Linux with Landlock and seccomp, without privileges); limits: only the limits "
        "below. A program may then read, change and send everything that the user can: for "
        "programs that you trust",
    )
    cpu_seconds: PositiveInt = Field(5, description="CPU time of a program")
    wall_seconds: float = Field(
        20.0, gt=0, description="wall-clock time of a program; longer than its CPU time, so that "
        "no program fails because the machine is busy"
    )  # fmt: skip
    memory_mib: PositiveInt = Field(512, description="address space of a program, in MiB")
    scratch_mib: PositiveInt = Field(
        8, description="total size of a program's files, in MiB: it creates at most 64 files "
        "(modes w, a and x), each of at most a 64th of this. With `isolation: limits`, the size of "
        "each file"
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended: `passed` if it ran to its end, else `error` says why not."""

    passed: bool
    error: str = ""


def run_python(
    program: str, options: SandboxOptions, channel: socket.socket | None = None
) -> Outcome:
    """Runs `program` in an empty folder, without this process's environment; its output is dropped.

    The program gets `channel` under the same number, and this process closes its copy. Raises
    `SandboxError` if this machine lacks the isolation that the options ask for.
    """
    require(options)
    return _run(program, options, channel)


def require(options: SandboxOptions) -> None:
    """Raises `SandboxError` if this machine cannot run and isolate programs as the options ask for.

    The isolation is tested: once per process a trial program tries to escape, and once for each set
    of options an empty program has to finish.
    """
    if options.isolation == "full" and (problem := _problem()):
        raise SandboxError(
            f"generated programs cannot be isolated here: {problem}. Use such a machine, or set "
            "isolation: limits in this `sandbox` section, if these programs may do everything that "
            "you may: read and change your files, use the network"
        )
    if not (outcome := _empty_program(options)).passed:
        given = ", ".join(f"{key}: {value}" for key, value in options)
        raise SandboxError(
            f"generated programs cannot be run here: even an empty one does not finish "
            f"({outcome.error}). Change the limits in this `sandbox` section ({given}), or use a "
            "Python that starts without environment variables such as LD_LIBRARY_PATH"
        )


@cache
def _empty_program(options: SandboxOptions) -> Outcome:
    """Runs an empty program. If it fails, every other program would fail and score 0."""
    return _run("", options)


@cache
def _problem() -> str:
    """Returns what is missing for full isolation; empty if nothing is."""
    if sys.platform != "linux" or platform.machine() not in MACHINES:
        here = f"{sys.platform} on {platform.machine()}"
        return f"it needs Linux on {' or '.join(MACHINES)}, and this is {here}"
    if landlock.version() < 1:
        return "it needs Landlock, of Linux 5.13 or newer, and this kernel has none or forbids it"
    with tempfile.NamedTemporaryFile("w", prefix="ebft-outside-") as outside:
        trial = TRIAL.format(outside=outside.name, files=MOST_FILES, refused=REFUSED)
        outcome = _run(trial, SandboxOptions())
    return "" if outcome.passed else f"the trial program failed ({outcome.error})"


REFUSED = (errno.EPERM, errno.EACCES, errno.EDQUOT)
TRIAL = """
import collections, copy, datetime, decimal, functools, hashlib, heapq, itertools, json, math
import os, random, re, socket, string, typing
open("inside", "w").write("x")
assert open("inside").read() == "x"
attempts = dict(
    read=lambda: open({outside!r}), write=lambda: open({outside!r}, "w"), remove=lambda: os.remove({outside!r}),
    mode=lambda: os.chmod({outside!r}, 0o777), connect=socket.socket, process=os.fork,
    signal=lambda: os.kill(os.getppid(), 0), datagram=lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
    address=lambda: socket.socketpair()[0].sendto(b"x", {outside!r}),
    opening=lambda: os.open({outside!r}, 3), emptying=lambda: os.open("/dev/zero", os.O_TRUNC),
    truncation=lambda: os.truncate({outside!r}, 0),
    many_files=lambda: [os.close(os.open("inside", os.O_CREAT)) for n in range({files})],
)
for name, attempt in attempts.items():
    try:
        attempt()
    except OSError as error:
        if error.errno in {refused}:
            continue
        raise
    raise SystemError(name + " was possible")
"""  # noqa: E501


def _run(program: str, options: SandboxOptions, channel: socket.socket | None = None) -> Outcome:
    word = secrets.token_bytes(WORD)
    with tempfile.TemporaryDirectory(prefix="ebft-sandbox-") as folder:
        ours, theirs = socket.socketpair()
        with ours, tempfile.TemporaryFile() as given:
            with theirs:
                passed = [theirs.fileno()] + ([] if channel is None else [channel.fileno()])
                given.write(marshal.dumps(_settings(program, folder, options)))
                given.seek(0)
                ours.sendall(word)
                process = subprocess.Popen(
                    [*PYTHON, str(theirs.fileno())], cwd=folder,
                    env=ENVIRONMENT | {"HOME": folder, "TMPDIR": folder},
                    stdin=given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    pass_fds=passed, start_new_session=True,
                )  # fmt: skip
                if channel is not None:
                    channel.close()
            try:
                report = _receive(ours, options)
                if report is not None and report[:WORD] != word:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(1)  # it is ending, and its status says why
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if report is None:
        return Outcome(False, f"stopped after {options.wall_seconds:g} s")
    if report[:WORD] != word:
        return Outcome(False, _ended(process.returncode, options))
    error = report[WORD:].decode(errors="replace")
    return Outcome(not error, error)


def _settings(program: str, folder: str, options: SandboxOptions) -> dict[str, Any]:
    """Returns the settings that `child.main` reads."""
    isolated = options.isolation == "full"
    scratch = options.scratch_mib * MIB
    limits = [
        ("CPU", options.cpu_seconds),
        ("AS", options.memory_mib * MIB),
        ("FSIZE", scratch // MOST_FILES if isolated else scratch),
        ("NOFILE", 64),
        ("CORE", 0),
    ]
    if not isolated:
        # It counts all processes of the user, so none can be started; the superuser has no limit.
        limits.append(("NPROC", 0))
    settings: dict[str, Any] = {
        "program": program,
        "limits": limits,
        "parent": os.getpid(),
        # Longer, so that this process stops the program first.
        "seconds": math.ceil(min(options.wall_seconds, 365 * A_DAY)) + 1,
        "word_length": WORD,
        "isolated": isolated,
    }
    if isolated:
        known, machine = landlock.version(), MACHINES[platform.machine()]
        settings |= {
            "handled": landlock.handled(known),
            "rules": landlock.rules(folder, known),
            "filter": seccomp_filter(machine),
            "counted": counting_filter(machine),
        }
    return settings


def _receive(channel: socket.socket, options: SandboxOptions) -> bytes | None:
    """Returns the program's report, empty if it ended without one; None after a timeout.

    Meanwhile its counted calls are answered.
    """
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    until = time.monotonic() + options.wall_seconds
    with ExitStack() as stack:
        counter, left = None, options.wall_seconds
        while left > 0:
            # Checked once more after the timeout, because this process may have been suspended.
            left = max(until - time.monotonic(), 0)
            for descriptor, event in poll.poll(1000 * min(left, A_DAY)):
                if counter and descriptor == counter.listener:
                    if event & select.POLLIN:
                        counter.answer()
                    else:
                        poll.unregister(descriptor)
                    continue
                expected = int(options.isolation == "full" and counter is None)
                try:
                    report, listeners, _, _ = socket.recv_fds(channel, MOST_REPORTED, expected)
                except ConnectionResetError:  # it closed the channel without reading the word
                    return b""
                if not listeners:
                    return report
                counter = Counter(listeners[0], MACHINES[platform.machine()])
                stack.callback(counter.close)
                poll.register(counter.listener, select.POLLIN)
    return None


def _ended(status: int, options: SandboxOptions) -> str:
    """Returns why a process ended without reporting that the program ran to its end."""
    if -status in (signal.SIGXCPU, signal.SIGKILL):
        return f"stopped: it used up its {options.cpu_seconds} s of CPU time, or its memory"
    if status < 0:
        named = {int(s): s.name for s in signal.Signals}  # some real-time signals have no name
        return f"killed by {named.get(-status, f'signal {-status}')}"
    return f"left before its end, with status {status}"
