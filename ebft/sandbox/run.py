"""Runs a generated Python program in a process of its own, isolated, and says how it ended."""

from __future__ import annotations

import marshal
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
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ebft.errors import SandboxError
from ebft.sandbox import landlock
from ebft.sandbox.options import SandboxOptions
from ebft.sandbox.syscalls import MACHINES, seccomp_filter

WORD = 16
"""Bytes of the word that says that a program ran to its end."""
MOST_REPORTED = 2048
MOST_FILES = 256
LOOK_EVERY = 0.05
"""Seconds between looks at a program's folder while it runs."""
MIB = 2**20

# -S, -s, -P: no site-packages, no folder to import from; UTF-8 whatever the locale. The hash seed
# is fixed so that a program that prints a set gets the same verdict every time.
PYTHON = (sys.executable, "-S", "-s", "-P", "-X", "utf8", str(Path(__file__).with_name("child.py")))
ENVIRONMENT = {"PYTHONHASHSEED": "0"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended: `passed` if it ran to its end, else why not."""

    passed: bool
    error: str = ""


def run_python(
    program: str, options: SandboxOptions, channel: socket.socket | None = None
) -> Outcome:
    """Runs `program` in an empty folder, without this process's environment; its output is lost.

    It has `channel`, under the same number; here that is closed as soon as it has it. Raises
    `SandboxError` if this machine cannot isolate it as the options ask for.
    """
    require(options)
    return _run(program, options, channel)


def require(options: SandboxOptions) -> None:
    """Raises `SandboxError` if this machine cannot run and isolate programs as the options ask for.

    It does not ask the kernel only: the first time in a process, a program tries to get out, and
    with each choice of options an empty one has to get to its end.
    """
    if options.isolation == "full" and (problem := _problem()):
        raise SandboxError(
            f"generated programs cannot be isolated here: {problem}. Run on such a machine, or set "
            "isolation: limits in this `sandbox` section, if these programs may do all that you "
            "may: read and change your files, use the network"
        )
    if not (outcome := _empty_program(options)).passed:
        given = ", ".join(f"{key}: {value}" for key, value in options)
        raise SandboxError(
            f"generated programs cannot be run here: not even an empty one gets to its end "
            f"({outcome.error}). Change the limits in this `sandbox` section ({given}), or use a "
            "Python that starts without environment variables such as LD_LIBRARY_PATH"
        )


@cache
def _empty_program(options: SandboxOptions) -> Outcome:
    """How a program without a line ends: where it fails, every other would, and be given 0."""
    return _run("", options)


@cache
def _problem() -> str:
    """What is missing for full isolation; empty if nothing is."""
    if sys.platform != "linux" or platform.machine() not in MACHINES:
        here = f"{sys.platform} on {platform.machine()}"
        return f"it takes Linux on {' or '.join(MACHINES)}, and this is {here}"
    if landlock.version() < 1:
        return "it takes Landlock, of Linux 5.13 or newer, and this kernel has none or forbids it"
    with tempfile.NamedTemporaryFile("w", prefix="ebft-outside-") as outside:
        outcome = _run(TRIAL.format(outside=outside.name), SandboxOptions())
    return "" if outcome.passed else f"a trial did not go as it should ({outcome.error})"


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
)
for name, attempt in attempts.items():
    try:
        attempt()
    except PermissionError:
        continue
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
                stopped = _watch(ours, folder, options)
                report = b"" if stopped else _receive(ours)
                if not stopped and not report:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(1)  # it is on its way out, and its status says how
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if stopped:
        return Outcome(False, stopped)
    if report[:WORD] != word:
        return Outcome(False, _ended(process.returncode, options))
    error = report[WORD:].decode(errors="replace")
    return Outcome(not error, error)


def _settings(program: str, folder: str, options: SandboxOptions) -> dict[str, Any]:
    """What `child.main` reads."""
    isolated = options.isolation == "full"
    limits = [
        ("CPU", options.cpu_seconds),
        ("AS", options.memory_mib * MIB),
        ("FSIZE", options.scratch_mib * MIB),
        ("NOFILE", 64),
        ("CORE", 0),
    ]
    if not isolated:
        # Counts all of the user's processes, so none can be started; the superuser's are not.
        limits.append(("NPROC", 0))
    settings: dict[str, Any] = {
        "program": program,
        "limits": limits,
        "word_length": WORD,
        "isolated": isolated,
    }
    if isolated:
        known = landlock.version()
        settings |= {
            "handled": landlock.handled(known),
            "rules": landlock.rules(folder, known),
            "filter": seccomp_filter(MACHINES[platform.machine()]),
        }
    return settings


def _watch(channel: socket.socket, folder: str, options: SandboxOptions) -> str:
    """Waits for the program's report or its end; why it has to be stopped, if it has to."""
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    until = time.monotonic() + options.wall_seconds
    while (left := until - time.monotonic()) > 0:
        if poll.poll(1000 * min(left, LOOK_EVERY)):
            return ""
        if _is_full(folder, options.scratch_mib * MIB):
            return f"stopped: more than {options.scratch_mib} MiB or {MOST_FILES} files"
    return f"stopped after {options.wall_seconds:g} s"


def _is_full(folder: str, most: int) -> bool:
    size = 0
    with os.scandir(folder) as entries:
        for count, entry in enumerate(entries, 1):
            with suppress(FileNotFoundError):
                size += entry.stat(follow_symlinks=False).st_size
            if count > MOST_FILES or size > most:
                return True
    return False


def _receive(channel: socket.socket) -> bytes:
    try:
        return channel.recv(MOST_REPORTED)
    except ConnectionResetError:  # it closed the channel and left the word in it
        return b""


def _ended(status: int, options: SandboxOptions) -> str:
    """Why a process is gone that did not say that it ran to its end."""
    if -status in (signal.SIGXCPU, signal.SIGKILL):
        return f"stopped: {options.cpu_seconds} s of CPU time are used up, or the memory"
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"left before its end, with status {status}"
