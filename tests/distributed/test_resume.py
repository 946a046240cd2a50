"""A run of two processes resumes from a checkpoint: bitwise in two, to rounding in one."""

import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from transformers import AutoModelForCausalLM

from ebft.checkpoints.folder import Checkpoints
from ebft.checkpoints.manifest import find_damage
from ebft.checkpoints.shards import read_shards
from tests.resume.common import AHEAD, logged_steps

STATEFUL = [
    "transforms=[{_component_: whiten_running, refresh_every: 3}]",
    "baseline=moving_average",
    "lr_scheduler=null",
    "training.steps=10",
    "checkpoint.every=5",
    "evaluation.every=5",
]
TUNE = [sys.executable, "-m", "ebft.cli.tune"]


@pytest.fixture
def run(ebft, tiny_run, environment, tmp_path):
    """Runs ten steps, or the second five; returns the checkpoint of each five."""

    def steps(name, processes, *more, after=None, recipe="ebft_full"):
        folder = tmp_path / name
        resume = [] if after is None else [f"checkpoint.resume={after}"]
        first, *rest = tiny_run(*STATEFUL, f"output_dir={folder}", *resume, *more, recipe=recipe)
        if processes == 1:
            status, _, err = ebft(first, *rest)
        else:
            command = [*TUNE, first, "--nproc_per_node", str(processes), *rest]
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False, timeout=300
            )
            status, err = done.returncode, done.stderr
        assert status == 0, err
        return [folder / "checkpoints" / f"step-{number:06d}" for number in (5, 10)]

    return steps


def tensors(checkpoint):
    """All of a checkpoint's tensors, those that processes have written parts of among them."""
    whole = {}
    for file in checkpoint.rglob("*.safetensors"):
        if (folder := file.parent.relative_to(checkpoint).as_posix()) != "run/shards":
            whole |= {f"{folder}/{name}": value for name, value in load_file(file).items()}
    shards = checkpoint / "run" / "shards"
    if shards.exists():
        assert len(list(shards.iterdir())) > 1
        written = HuggingFaceStorageReader(str(shards)).read_metadata().state_dict_metadata
        like = {name: torch.empty(found.size) for name, found in written.items()}
        read = read_shards(shards, like)
        whole |= {f"run/optimizer.state.{name}": value for name, value in read.items()}
    return whole


def assert_equal(checkpoint, other):
    one, two = tensors(checkpoint), tensors(other)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def assert_close(checkpoint, other):
    one, two = tensors(checkpoint), tensors(other)
    assert one.keys() == two.keys()
    assert "run/optimizer.state.0.exp_avg" in one
    for name in one.keys() - {"run/random.cpu"}:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_two_processes_go_on_where_they_or_one_were(run):
    five, ten = run("two", 2)
    AutoModelForCausalLM.from_pretrained(ten)
    _, resumed = run("two_resumed", 2, after=five)
    assert_equal(ten, resumed)
    assert_close(ten, run("one_resumed", 1, after=five)[1])
    five_of_one, ten_of_one = run("one", 1)
    assert_close(five_of_one, five)
    assert_close(ten_of_one, run("two_from_one", 2, after=five_of_one)[1])


@pytest.mark.slow
@pytest.mark.parametrize("merge", ["true", "false"])
def test_an_adapter_goes_on_too(run, merge):
    saved = {"recipe": "ebft_lora"}
    merged = f"checkpoint.merge_adapter={merge}"
    five, ten = run("two", 2, merged, **saved)
    assert (ten / "model.safetensors").exists() == (merge == "true")
    _, resumed = run("two_resumed", 2, merged, after=five, **saved)
    assert_equal(ten, resumed)
    assert_close(ten, run("one", 1, merged, **saved)[1])


@pytest.mark.slow
def test_rollouts_that_were_sampled_ahead_go_on_too(run):
    five, ten = run("two", 2, *AHEAD)
    _, resumed = run("two_resumed", 2, *AHEAD, after=five)
    assert_equal(ten, resumed)
    # Pending rollouts are in the order in which processes have the documents.
    weights = [load_file(it / "model.safetensors") for it in (ten, run("one", 1, *AHEAD)[1])]
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-5)


def newest(run):
    """The number of its last step that has a checkpoint; 0 if none has."""
    saved = Checkpoints(run / "checkpoints", keep=2).saved()
    return int(saved[-1].name.removeprefix("step-")) if saved else 0


def kill_all(process, rng, _saves):
    """All of them, at a random moment."""
    time.sleep(rng.uniform(0, 0.5))
    os.killpg(process.pid, signal.SIGKILL)


def kill_one(process, rng, saves):
    """One of the two, at a random moment of the next checkpoint's writing."""
    since = time.time()
    while len(workers := workers_of(process)) < 2:
        assert time.time() < since + 60
        time.sleep(0.05)
    begun = time.time()
    while not any(changed_since(partial, begun) for partial in saves.glob("*.partial")):
        assert time.time() < begun + 60
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.1))
    rng.choice(workers).kill()


def changed_since(partial, moment):
    """Whether it is not what an earlier kill has left."""
    try:
        return partial.stat().st_mtime > moment
    except FileNotFoundError:
        return False


def workers_of(process):
    children = psutil.process_iter(["ppid", "cmdline"])  # without those that end meanwhile
    return [
        child
        for child in children
        if child.info["ppid"] == process.pid and "ebft.cli.main" in (child.info["cmdline"] or [])
    ]


KILLS = ((1, kill_all), (2, kill_one), (4, kill_one), (5, kill_all), (7, kill_one))
"""The step that is done, and what is killed then."""


@pytest.mark.slow
def test_two_processes_that_are_killed_go_on_by_themselves(tiny_run, environment, tmp_path):
    """kill -9 at random moments; the same command each time."""
    rng, log = random.Random(0), (tmp_path / "log").open("w")

    def start(folder):
        first, *rest = tiny_run(
            *STATEFUL, "checkpoint.every=1", "checkpoint.resume=auto", f"output_dir={folder}"
        )
        return subprocess.Popen(
            [*TUNE, first, "--nproc_per_node", "2", *rest],
            env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole).wait(300) == 0, (tmp_path / "log").read_text()
    for reached, kill in KILLS:
        process = start(killed)
        while newest(killed) < reached:
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)
        kill(process, rng, killed / "checkpoints")
        assert process.wait(60) != 0
        assert newest(killed) >= reached
        saved = Checkpoints(killed / "checkpoints", keep=2).saved()
        assert [find_damage(path) for path in saved] == [None] * len(saved)
    assert start(killed).wait(300) == 0, (tmp_path / "log").read_text()
    final = "checkpoints/step-000010"
    assert_equal(whole / final, killed / final)
    figures = [(folder / "evaluations.jsonl").read_text() for folder in (whole, killed)]
    assert figures[0] == figures[1]
    assert logged_steps(killed) == list(range(1, 11))


@pytest.mark.slow
def test_replicas_write_each_part_once_and_go_on(run):
    """Four processes, the weights divided over two and there twice."""
    groups = ["parallel.replicas=2", "evaluation.evaluators=[]", "~evaluation.every"]
    five, ten = run("four", 4, *groups)
    parts = [name for file in (five / "run" / "shards").iterdir() for name in load_file(file)]
    assert len(parts) == 2 * len(set(parts)), "each tensor in two parts, none of them twice"
    _, resumed = run("resumed", 4, *groups, after=five)
    assert_equal(ten, resumed)
