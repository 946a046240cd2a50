"""Faults of a run: each ends the run as documented, and the run can be resumed."""

import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import termios
from importlib import import_module

import pytest
import torch

from ebft.runs.progress import Progress
from tests.resume.common import STATEFUL, assert_same_checkpoints, checkpoint, logged_steps

ADAM = import_module("torch.optim.adam")

PLUGIN = '''
import os, signal, time
import ebft
import torch
from ebft.rewards.feature_matching import FeatureMatching


class Fragile(FeatureMatching):
    """feature_matching, until the fault that the environment names, in its sixth call."""

    def build(self, resources):
        return FragileReward(super().build(resources))


class FragileReward:
    def __init__(self, reward):
        self.reward, self.calls = reward, 0

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]

    def __call__(self, rollouts, features):
        self.calls += 1
        if self.calls == 6 and (fault := os.environ.get("FAULT")):
            getattr(self, fault)()
        return self.reward(rollouts, features)

    def wrong(self):
        raise KeyError("no such thing")

    def hang(self):
        os.kill(os.getpid(), signal.SIGTERM)
        while True:
            time.sleep(0.01)

    def no_memory(self):
        torch.empty(1 << 60)


@ebft.hookimpl
def register_rewards():
    return {"fragile": Fragile}
'''


@pytest.fixture
def fragile(tiny_run, tmp_path):
    """A run whose reward fails in its sixth call, after whitening has seen the step."""
    file = tmp_path / "fragile.py"
    file.write_text(PLUGIN)

    def run(*more, name="run"):
        stateful = [*STATEFUL, f"plugins=[{file}]", "reward=fragile"]
        return tiny_run(*stateful, f"output_dir={tmp_path / name}", *more)

    return run


@pytest.fixture
def whole(ebft, fragile, tmp_path):
    """The checkpoint after ten steps without a fault."""
    assert ebft(*fragile(name="whole"))[0] == 0
    return checkpoint(tmp_path / "whole", 10)


@pytest.fixture
def goes_on(ebft, fragile, whole, tmp_path):
    """Checks that the run resumes after that step, and ends like an uninterrupted run."""

    def check(step):
        status, _, err = ebft(*fragile("checkpoint.resume=auto"))
        assert status == 0, err
        assert f"resuming after step {step}" in err
        assert_same_checkpoints(whole, checkpoint(tmp_path / "run", 10))
        assert logged_steps(tmp_path / "run") == list(range(1, 11))

    return check


def at_step(monkeypatch, number, do):
    shown = Progress.step

    def step(self, step, metrics):
        shown(self, step, metrics)
        if step.number + 1 == number:
            do()

    monkeypatch.setattr(Progress, "step", step)


def test_sigterm_finishes_the_step(ebft, fragile, monkeypatch, goes_on, tmp_path):
    at_step(monkeypatch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGALRM)]
    status, _, err = ebft(*fragile())
    assert status == 143
    assert f"stopped after step 3; checkpoint: {checkpoint(tmp_path / 'run', 3)}" in err
    assert before == [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGALRM)]
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    monkeypatch.undo()
    goes_on(3)


def test_sigterm_breaks_off_a_step_that_takes_too_long(ebft, fragile, monkeypatch, goes_on):
    monkeypatch.setenv("FAULT", "hang")
    status, _, err = ebft(*fragile("checkpoint.grace=0.3"))
    assert status == 143
    assert "stopped after step 5" in err
    monkeypatch.undo()
    goes_on(5)


def test_an_update_is_never_broken_off(ebft, fragile, monkeypatch, tmp_path):
    """The signal comes in the middle of the optimizer's step, and no time is left."""
    update, calls = ADAM.adam, []

    def slow(*arguments, **more):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()  # the alarm has come, and did not break it off
        return update(*arguments, **more)

    monkeypatch.setattr(ADAM, "adam", slow)
    status, _, err = ebft(*fragile("checkpoint.grace=0.05"))
    assert status == 143
    assert "stopped after step 3" in err
    assert logged_steps(tmp_path / "run") == [1, 2, 3]


def test_a_run_whose_output_nobody_reads_is_done_all_the_same(
    ebft, tiny_run, monkeypatch, tmp_path
):
    with contextlib.ExitStack() as opened:
        for name, buffering in (("stdout", -1), ("stderr", 1)):
            read, write = os.pipe()
            os.close(read)
            unread = opened.enter_context(os.fdopen(write, "w", buffering))
            monkeypatch.setattr(sys, name, unread)
        assert ebft(*tiny_run("training.show_rollouts_every=1"))[0] == 0
    assert checkpoint(tmp_path / "run", 3).is_dir()


def test_a_part_that_raises_is_named_and_the_policy_saved(
    ebft, fragile, monkeypatch, goes_on, tmp_path, capsys
):
    monkeypatch.setenv("FAULT", "wrong")
    with pytest.raises(KeyError) as raised:
        ebft(*fragile())
    [note] = raised.value.__notes__
    assert note == (
        f"ebft: this was raised after 5 steps, in reward = fragile ({tmp_path / 'fragile.py'})"
    )
    saved = checkpoint(tmp_path / "run", 5)
    assert f"the policy is intact; checkpoint: {saved}" in capsys.readouterr().err
    monkeypatch.undo()
    goes_on(5)


def test_an_evaluator_that_raises_is_named(ebft, fragile, tmp_path, monkeypatch):
    def broken(self, policy, documents):
        raise ZeroDivisionError

    where = "ebft.evaluation.cross_entropy.CrossEntropyEvaluator.__call__"
    at_step(monkeypatch, 3, lambda: monkeypatch.setattr(where, broken))
    with pytest.raises(ZeroDivisionError) as raised:
        ebft(*fragile())
    assert raised.value.__notes__[0].startswith(
        "ebft: this was raised after 5 steps, in evaluation.evaluators.0 = cross_entropy (ebft"
    )
    assert checkpoint(tmp_path / "run", 5).is_dir()


def test_a_policy_in_the_middle_of_an_update_is_not_saved(ebft, fragile, monkeypatch, tmp_path):
    update, calls = ADAM.adam, []

    def fails(*arguments, **more):
        calls.append(1)
        update(*arguments, **more)
        if len(calls) == 6:
            raise RuntimeError("half of it")

    monkeypatch.setattr(ADAM, "adam", fails)
    with pytest.raises(RuntimeError, match="half of it"):
        ebft(*fragile())
    saved = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert saved == ["step-000004"]


@pytest.fixture
def small_files():
    """Limits how large a file may become: writing more fails, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk(ebft, fragile, monkeypatch, small_files, goes_on, tmp_path):
    at_step(monkeypatch, 6, lambda: small_files(20_000))
    status, _, err = ebft(*fragile())
    small_files(resource.RLIM_INFINITY)
    assert status == 1
    last = err.rstrip().splitlines()[-1]
    assert "cannot save the checkpoint of step 8" in last
    assert f"the checkpoint before it is whole: {checkpoint(tmp_path / 'run', 4)}" in last
    monkeypatch.undo()
    goes_on(4)
    assert logged_steps(tmp_path / "run") == list(range(1, 11))


def test_a_disk_without_room_for_a_checkpoint(ebft, tiny_run, monkeypatch, tmp_path):
    """Known before the first step, and before the run that is there is deleted."""
    assert ebft(*tiny_run("training.steps=1"))[0] == 0
    shutil.rmtree(tmp_path / "run" / "checkpoints")  # of a small model, they would be room enough
    before = sorted((tmp_path / "run").rglob("*"))
    disk = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk)
    status, _, err = ebft(*tiny_run("overwrite=true"))
    assert status == 2
    assert f"output_dir = {tmp_path / 'run'}: a checkpoint takes 0.00 GiB or more, and" in err
    assert sorted((tmp_path / "run").rglob("*")) == before


def test_a_disk_too_full_for_a_line_of_figures(ebft, fragile, monkeypatch, small_files, goes_on):
    at_step(monkeypatch, 6, lambda: small_files(1))
    status, _, err = ebft(*fragile())
    small_files(resource.RLIM_INFINITY)
    assert status == 1
    assert err.rstrip().splitlines()[-1].startswith("error: cannot write ")
    monkeypatch.undo()
    goes_on(4)


def test_nan_leaves_the_checkpoints_before_it(ebft, fragile, monkeypatch, goes_on, tmp_path):
    from ebft.training import loop

    def nan_in_step_6(m, steps, observer):
        for step in train(m, steps, observer):
            if step.number == 5:
                with torch.no_grad():
                    next(m.policy.parameters()).fill_(float("nan"))
            yield step

    train = loop.train
    monkeypatch.setattr("ebft.runs.finetune.train", nan_in_step_6)
    status, _, err = ebft(*fragile())
    assert status == 1
    assert "step 7: " in err.rstrip().splitlines()[-1]
    assert not checkpoint(tmp_path / "run", 6).exists()
    monkeypatch.undo()
    goes_on(4)


def test_data_that_is_gone(ebft, tiny_run, python_folder, tmp_path):
    folder = shutil.copytree(python_folder, tmp_path / "texts")
    assert ebft(*tiny_run(f"data.path={folder}"))[0] == 0
    shutil.rmtree(folder)
    before = sorted((tmp_path / "run").rglob("*"))
    more = ["training.steps=4", "checkpoint.resume=auto"]
    status, _, err = ebft(*tiny_run(f"data.path={folder}", *more))
    assert status == 2
    assert f"data.path = {folder}: no such folder" in err
    assert before == sorted((tmp_path / "run").rglob("*"))


FORGETFUL = '''
import numpy as np

import ebft
from ebft.baselines.leave_one_out import LeaveOneOut


class Forgetful(LeaveOneOut):
    """leave_one_out, with state that no checkpoint can hold."""

    def state_dict(self):
        return {"count": np.int64(1)}

    def load_state_dict(self, state):
        pass


@ebft.hookimpl
def register_baselines():
    return {"forgetful": Forgetful}
'''


def test_state_that_no_checkpoint_holds_is_refused_at_once(ebft, tiny_run, tmp_path):
    """And not at the first checkpoint, which may be hours later."""
    plugin = tmp_path / "forgetful.py"
    plugin.write_text(FORGETFUL)
    status, _, err = ebft(*tiny_run(f"plugins=[{plugin}]", "baseline=forgetful"))
    assert status == 2
    assert "state of parts.baseline.count is a int64, which a checkpoint cannot hold" in err
    assert "Traceback" not in err


# Tests that are started by nohup inherit that SIGHUP is ignored.
IN_A_TERMINAL = """
import os, signal, sys

signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.login_tty(0)
from ebft.cli.main import main

sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_terminal_that_is_closed_costs_no_step(tiny_run, tmp_path):
    """Nothing that the run has to say after that can be written anywhere."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(ours, (24, 120))  # in a terminal of no width there is no bar
    arguments = tiny_run("training.steps=100000", "checkpoint.every=null")
    process = subprocess.Popen(
        [sys.executable, "-c", IN_A_TERMINAL, *arguments],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while not re.search(rb" [2-9]\d*/100000", shown) and process.poll() is None:
        try:
            shown += os.read(ours, 2**16)
        except OSError:  # it has ended, and so has the terminal
            pytest.fail(shown.decode())
    os.close(ours)
    assert process.wait(120) == 143
    (saved,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert logged_steps(tmp_path / "run")[-1] == int(saved.name.removeprefix("step-")) >= 2
