"""A run that is stopped has the time to save its last step, however long a step takes."""

import signal
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
    ("terminate", "heeded", "status"),
    [("lambda *_: sys.exit(143)", [signal.SIGTERM], 143), ("signal.SIG_IGN", [], -9)],
    ids=["saves on SIGTERM", "does not react"],
)
def test_a_step_that_outlasts_the_first_request(monkeypatch, terminate, heeded, status):
    command = [sys.executable, "-c", LONG_STEP.format(terminate=terminate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as run:
        assert run.stdout.readline() == b"ready\n"
        sent, asked = [], []

        def send(number, send=run.send_signal):
            sent.append(number)
            send(number)

        def wait(seconds=None, wait=run.wait):
            asked.append(seconds)
            if seconds is not None and sent[-1] not in heeded:
                raise subprocess.TimeoutExpired(command, seconds)  # however busy the machine is
            return wait()

        with monkeypatch.context() as patched:
            patched.setattr(run, "send_signal", send)
            patched.setattr(run, "wait", wait)
            assert process.interrupt(run) == status
        assert sent[:2] == [signal.SIGINT, signal.SIGTERM]
        assert asked[:2] == [process.GRACE] * 2


def test_sigterm_is_passed_on_and_waited_for(monkeypatch):
    monkeypatch.setattr(process, "GRACE", 0.1)
    save = "lambda *_: (time.sleep(0.5), sys.exit(143))"
    command = [sys.executable, "-c", LONG_STEP.format(terminate=save)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as run:
        assert run.stdout.readline() == b"ready\n"
        assert process.terminate(run) == 143
