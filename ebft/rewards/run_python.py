"""Runs a Python program that a model wrote, in a process of its own with limits."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# The program cannot pass by printing something or by leaving early: only running to its last line
# leads to the word, which it does not know.
HARNESS = """\
import resource, sys
_word, _cpu, _memory = sys.stdin.readline().split()
for _limit, _most in (("CPU", int(_cpu)), ("AS", int(_memory)), ("FSIZE", 1 << 20), ("CORE", 0)):
    resource.setrlimit(getattr(resource, "RLIMIT_" + _limit), (_most, _most))
exec(compile(open("program.py").read(), "program.py", "exec"), {"__name__": "__main__"})
print(_word, file=sys.__stdout__, flush=True)
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended; `error` is the end of what it wrote to stderr, or why it was stopped."""

    passed: bool
    error: str


def run_python(program: str, *, seconds: float = 5.0, memory: int = 512 * 2**20) -> Outcome:
    """Runs `program` in an empty folder, without this process's environment.

    Passed means that it ran to its end. CPU time, memory (bytes), file size and wall clock are
    limited, and its whole process group is killed afterwards. This guards against accidents, not
    against a program that means harm.
    """
    word = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="ebft-") as folder:
        Path(folder, "program.py").write_text(program, encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", HARNESS],
            cwd=folder, env={}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        try:
            given = f"{word} {int(seconds) + 1} {memory}\n"
            out, err = process.communicate(given, timeout=seconds)
        except subprocess.TimeoutExpired:
            return Outcome(False, f"stopped after {seconds:g} s")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    passed = process.returncode == 0 and out.rstrip().endswith(word)
    return Outcome(passed, "" if passed else err[-500:])
