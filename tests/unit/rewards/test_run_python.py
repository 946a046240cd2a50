"""Programs that must not pass, and that must not get away."""

import os
import time
from pathlib import Path

import pytest

from ebft.rewards.run_python import run_python


def test_running_to_the_end_is_passing():
    assert run_python("def f(x):\n    return x + 1\nassert f(1) == 2").passed


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("assert 1 == 2", "AssertionError"),
        ("def f(:", "SyntaxError"),
        ("import sys; sys.exit(0)", ""),
        ("import os; os._exit(0)", ""),
        ("print('passed'); raise SystemExit", ""),
        ("bytearray(10 * 2**30)", "MemoryError"),
        ("open('x', 'wb').write(bytes(2**22))", "File too large"),
        ("import sys; sys.stdout = None; sys.__stdout__.close()", ""),
    ],
)
def test_anything_else_is_not(program, why):
    outcome = run_python(program)
    assert not outcome.passed
    assert why in outcome.error


def test_an_endless_loop_is_stopped_with_its_children(tmp_path):
    file = tmp_path / "pid"
    program = (
        "import os, time\n"
        f"if os.fork() == 0:\n    open({str(file)!r}, 'w').write(str(os.getpid()))\n"
        "while True: time.sleep(0.1)\n"
    )
    started = time.monotonic()
    outcome = run_python(program, seconds=1.5)
    assert outcome.error == "stopped after 1.5 s"
    assert time.monotonic() - started < 30
    child = int(file.read_text())
    for _ in range(100):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":
            return  # dead, and waiting for whoever adopted it
        time.sleep(0.05)
    pytest.fail("the child process is still there")


def test_the_environment_is_not_given_away(monkeypatch):
    monkeypatch.setenv("EBFT_SECRET", "x")
    assert run_python("import os; assert 'EBFT_SECRET' not in os.environ").passed
