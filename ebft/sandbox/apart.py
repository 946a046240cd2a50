"""Runs a program and its check in two processes, so that the program cannot decide the outcome."""

from __future__ import annotations

import builtins
import marshal
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ebft.sandbox.run import Outcome, SandboxOptions, require, run_python

SOURCES = ("values.py", "calls.py", "checking.py")
"""What runs in front of the program and of the check, in this order."""
GRACE = 10.0
"""Seconds that a program's process has beyond its own time on the clock to be gone."""
IMPORT = re.compile(r"^(?:from .* import \([^)]*\)|(?:from|import) .*)", re.MULTILINE)
DEFINED = re.compile(r"^(?:(?:async )?def|class) +(\w+)", re.MULTILINE)
ASSIGNED = re.compile(r"^(\w+) *=", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Check:
    """The tests of a program, and what is known of the program without trusting it.

    `context` is the text that the program goes on from, `reference` a right continuation of it.
    """

    tests: str
    context: str = ""
    reference: str = ""

    @property
    def tested(self) -> list[str]:
        """Names that mean the program's own: the function that the context begins, and builtins
        that the reference defines anew."""
        known = self.context + self.reference
        names = {*DEFINED.findall(known), *ASSIGNED.findall(known)} & set(dir(builtins))
        return sorted(names.union(DEFINED.findall(self.context)[-1:]))

    @property
    def helpers(self) -> list[str]:
        """Texts of the data that the tests may need: imports, and functions of the context."""
        return [*IMPORT.findall(self.context + self.reference), self.context]


def run_apart(program: str, check: Check, options: SandboxOptions) -> Outcome:
    """Whether `program` runs to its end and what it defines then passes the check.

    The check runs in a process of its own: what the program's functions return is sent there as
    plain values, and compared there. Raises `SandboxError` if this machine cannot isolate them as
    the options ask for.
    """
    require(options)
    ours, theirs = socket.socketpair()
    with ours, theirs, ThreadPoolExecutor(1) as pool:
        served = f"{_sources()}serve({theirs.fileno()}, {program!r})\n"
        serving = pool.submit(_serve, served, options, theirs)
        ours.settimeout(options.wall_seconds + GRACE)
        try:
            is_ready = bool(ours.recv(1))
        except (TimeoutError, ConnectionResetError):
            is_ready = False
        if not is_ready:
            ours.close()
            return Outcome(False, serving.result().error or "left before its end")
        ours.settimeout(None)
        return run_python(_checking(ours.fileno(), check), options, ours)


def _serve(program: str, options: SandboxOptions, channel: socket.socket) -> Outcome:
    with channel:  # closed whatever happens: the check's side waits for that
        return run_python(program, options, channel)


def run_without_program(check: Check, options: SandboxOptions) -> Outcome:
    """How the check ends where every function of the program returns None."""
    return run_python(_checking(None, check), options)


def _checking(channel: int | None, check: Check) -> str:
    given = f"{channel}, {check.tests!r}, {check.helpers!r}, {check.tested!r}"
    return f"{_sources()}run_check({given})\n"


@cache
def _sources() -> str:
    """The text that puts the sources in front, compiled: that costs a third of a short program."""
    future = "from __future__ import annotations\n"  # which may stand at the beginning only
    texts = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in SOURCES)
    whole = future + "".join(texts).replace(future, "")
    code = marshal.dumps(compile(whole, "ebft.sandbox", "exec"))
    return f"import marshal\nexec(marshal.loads({code!r}))\n"
