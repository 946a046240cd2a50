"""A run that is stopped has the time to save its last step, however long a step takes."""

import subprocess
import sys

import pytest

from ebft.study import process

LONG_STEP = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, {terminate})
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("terminate", "status"),
    [("lambda *_: sys.exit(143)", 143), ("signal.SIG_IGN", -9)],
    ids=["saves on SIGTERM", "does not react"],
)
def test_a_step_that_outlasts_the_first_request(monkeypatch, terminate, status):
    monkeypatch.setattr(process, "GRACE", 0.5)
    command = [sys.executable, "-c", LONG_STEP.format(terminate=terminate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as run:
        assert run.stdout.readline() == b"ready\n"
        assert process.interrupt(run) == status


def test_sigterm_is_passed_on_and_waited_for(monkeypatch):
    monkeypatch.setattr(process, "GRACE", 0.1)
    save = "lambda *_: (time.sleep(0.5), sys.exit(143))"
    command = [sys.executable, "-c", LONG_STEP.format(terminate=save)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as run:
        assert run.stdout.readline() == b"ready\n"
        assert process.terminate(run) == 143
