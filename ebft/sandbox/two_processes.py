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
"""The sources that run before the program and before the check, in this order."""
GRACE = 10.0
"""Seconds after its wall-clock limit within which a program's process must end."""
IMPORT = re.compile(r"^(?:from .* import \([^)]*\)|(?:from|import) .*)", re.MULTILINE)
DEFINED = re.compile(r"^(?:(?:async )?def|class) +(\w+)", re.MULTILINE)
ASSIGNED = re.compile(r"^(\w+) *=", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Check:
    """The tests of a program, with the trusted texts of its document.

    `context` is the text that the program begins with, `reference` a correct continuation of it.
    """

    tests: str
    context: str = ""
    reference: str = ""

    @property
    def tested(self) -> list[str]:
        """Names that always come from the program: the function that the context begins, and
        builtins that the reference redefines."""
        known = self.context + self.reference
        names = {*DEFINED.findall(known), *ASSIGNED.findall(known)} & set(dir(builtins))
        return sorted(names.union(DEFINED.findall(self.context)[-1:]))

    @property
    def helpers(self) -> list[str]:
        """Code of the data that the tests may need: imports, and functions of the context."""
        return [*IMPORT.findall(self.context + self.reference), self.context]


def run_in_two_processes(program: str, check: Check, options: SandboxOptions) -> Outcome:
    """Returns whether `program` runs to its end and its definitions then pass the check.

    The check runs in its own process. Values that the program's functions return are sent there as
    plain values, and compared there. Raises `SandboxError` if this machine lacks the isolation that
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
            return Outcome(False, f"program: {serving.result().error or 'left before its end'}")
        ours.settimeout(None)
        return run_python(_checking(ours.fileno(), check), options, ours)


def _serve(program: str, options: SandboxOptions, channel: socket.socket) -> Outcome:
    with channel:  # always closed, because the check's side waits for it
        return run_python(program, options, channel)


def run_without_program(check: Check, options: SandboxOptions) -> Outcome:
    """Returns how the check ends if every function of the program returns None."""
    return run_python(_checking(None, check), options)


def _checking(channel: int | None, check: Check) -> str:
    given = f"{channel}, {check.tests!r}, {check.helpers!r}, {check.tested!r}"
    return f"{_sources()}run_check({given})\n"


@cache
def _sources() -> str:
    """Returns code that runs the compiled sources; compiling takes a third of a short program."""
    future = "from __future__ import annotations\n"  # allowed only at the beginning
    texts = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in SOURCES)
    whole = future + "".join(texts).replace(future, "")
    code = marshal.dumps(compile(whole, "ebft.sandbox", "exec"))
    return f"import marshal\nexec(marshal.loads({code!r}))\n"
