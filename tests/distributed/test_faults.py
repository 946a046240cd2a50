"""One process of two fails: the run ends in time, with one clear message, and says which."""

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ebft.checkpoints.manifest import find_damage

PLUGIN = '''
import os
import signal
import time
from typing import Literal

import ebft
from ebft.rewards.feature_matching import FeatureMatching

SEEN = []


class Faulty(FeatureMatching):
    """feature_matching, until the second step of process 1."""

    fault: Literal["nan", "dies", "hangs", "raises", "engine"]

    def __call__(self, rollouts, features):
        terms = super().__call__(rollouts, features)
        SEEN.append(rollouts)
        if len(SEEN) == 2 and (os.environ["RANK"] == "1" or self.fault == "engine"):
            terms = getattr(self, self.fault)(terms)
        return terms

    def nan(self, terms):
        return ebft.Terms(terms.unary * float("nan"), terms.pairwise)

    def dies(self, terms):
        os.kill(os.getpid(), signal.SIGKILL)

    def hangs(self, terms):
        time.sleep(1000)

    def raises(self, terms):
        raise LookupError("a bug in a plug-in")

    def engine(self, terms):
        error = ebft.EngineError("the engine has ended")
        error.in_all_processes = True
        raise error


@ebft.hookimpl
def register_rewards():
    return {"faulty": Faulty}
'''
LARGEST = 60_000
"""Bytes of a file: more than logs and recipes have, less than a process's part of the moments."""
TUNE = [sys.executable, "-m", "ebft.cli.tune", "run", "--nproc_per_node", "2"]


@pytest.fixture
def start(tiny_run, environment, tmp_path):
    """Starts two processes."""

    def two(*overrides):
        _, *arguments = tiny_run(*overrides, "evaluation.evaluators=[]")
        return subprocess.Popen(
            [*TUNE, *arguments], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    return two


@pytest.fixture
def fail(start, tmp_path):
    """Two processes of which one fails as it is told: the run's status and its last words."""

    def run(fault, *overrides):
        file = tmp_path / "faulty.py"
        file.write_text(PLUGIN)
        reward = [f"plugins=[{file}]", "reward=faulty", f"reward.fault={fault}"]
        process = start(*reward, *overrides)
        _, err = process.communicate(timeout=240)
        lines = [line for line in err.splitlines() if line.strip()]
        return process.returncode, lines

    return run


def said(lines, word):
    return [line for line in lines if word in line]


@pytest.mark.slow
class TestOneProcessOfTwo:
    def test_has_a_nan(self, fail):
        status, lines = fail("nan")
        assert status == 1
        (line,) = said(lines, "error")
        assert line.startswith("error: process 1: step 2: rewards have NaN or infinite values")
        assert not said(lines, "Traceback")

    def test_is_killed(self, fail):
        status, lines = fail("dies")
        assert status == 1
        assert said(lines, "process 1: Signal 9 (SIGKILL)")
        assert not said(lines, "Traceback")

    def test_hangs(self, fail):
        status, lines = fail("hangs", "parallel.timeout=10")
        assert status == 1
        (line,) = said(lines, "error")
        assert "timed out waiting: process 1 is in hangs, " in line
        assert "faulty.py:" in line
        assert not said(lines, "process 0 is")
        assert not said(lines, "Traceback")

    def test_and_the_other_lose_an_engine(self, fail, tmp_path):
        status, lines = fail("engine", "checkpoint.every=null")
        assert status == 1
        (line,) = said(lines, "error")
        assert line.endswith("the engine has ended")
        (saved,) = (tmp_path / "run" / "checkpoints").iterdir()
        assert saved.name == "step-000001"
        assert find_damage(saved) is None

    def test_has_a_bug(self, fail):
        status, lines = fail("raises")
        assert status == 1
        assert said(lines, "process 1 failed:")
        assert len(said(lines, "Traceback")) == 1
        assert said(lines, "LookupError: a bug in a plug-in")
        assert said(lines, "ebft: this was raised after 1 steps, in reward = faulty")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signal_sent", "status", "says"),
    [
        (signal.SIGINT, 130, "stopping after this step"),
        (signal.SIGTERM, 143, "SIGTERM: stopping after this step"),
    ],
)
def test_a_signal_stops_all_with_a_checkpoint(start, tmp_path, signal_sent, status, says):
    process = start("training.steps=100000", "checkpoint.every=2")
    saved = tmp_path / "run" / "checkpoints"
    deadline = time.monotonic() + 200
    while not list(saved.glob("step-??????")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal_sent)
    _, err = process.communicate(timeout=200)
    assert process.returncode == status
    assert err.count(says) == 1
    (line,) = [line for line in err.splitlines() if "stopped after step" in line]
    assert Path(line.split("checkpoint: ")[1].strip()).is_dir()
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_before_it_whole(tiny_run, environment, tmp_path):
    """The limit on file sizes makes the write of a process's part fail, as a full disk does."""
    run = [*TUNE, *tiny_run("evaluation.evaluators=[]", "checkpoint.every=1")[1:]]
    more = {"env": environment, "capture_output": True, "text": True, "check": False}
    assert subprocess.run([*run, "training.steps=1", "lr_scheduler=null"], **more).returncode == 0
    (kept,) = (tmp_path / "run" / "checkpoints").iterdir()

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST, LARGEST))

    go_on = ["training.steps=2", "lr_scheduler=null", "checkpoint.resume=auto"]
    done = subprocess.run([*run, *go_on], timeout=240, preexec_fn=limit, **more)
    assert done.returncode == 1
    (line,) = said(done.stderr.splitlines(), "error")
    assert "cannot save the checkpoint of step 2" in line
    assert f"the checkpoint before it is whole: {kept}" in line
    assert not said(done.stderr.splitlines(), "Traceback")
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]
    assert find_damage(kept) is None
