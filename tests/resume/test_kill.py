"""kill -9 at any moment: nothing is lost beyond the last checkpoint, and none is unreadable."""

import logging
import random
import time
from multiprocessing import get_context

import pytest
import torch
from safetensors.torch import load_file

from ebft.checkpoints.manifest import find_damage

KILLS = {"ebft_full": 20, "ebft_lora": 5}
STEPS = 12
WAITS = 120
"""Seconds for one whole run: far more than it takes."""


def run_recipe(arguments, log):
    """What a process of the tests runs, with its output in a file."""
    import os
    import sys

    import torch

    from ebft.cli.main import main

    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1), os.dup2(descriptor, 2)
    torch.set_num_threads(1)
    sys.exit(main(arguments))


@pytest.fixture(scope="module")
def processes():
    """Processes that have imported everything: it takes them a second to reach the first step."""
    context = get_context("forkserver")
    context.set_forkserver_preload(
        ["ebft.runs.finetune", "ebft.runs.trial", "transformers.optimization", "datasets"]
    )
    return context


@pytest.fixture
def start(processes, tmp_path):
    def process(arguments):
        started = processes.Process(target=run_recipe, args=(arguments, tmp_path / "log"))
        started.start()
        return started

    return process


@pytest.mark.slow
@pytest.mark.parametrize("recipe", KILLS)
def test_kill_at_random_moments(start, tiny_run, tmp_path, recipe):
    rng, wanted = random.Random(0), KILLS[recipe]
    options = [
        "transforms=[{_component_: whiten_running, refresh_every: 3}]", "baseline=moving_average",
        f"training.steps={STEPS}", "checkpoint.every=1", "evaluation.every=4",
    ]  # fmt: skip
    start(["--version"]).join(WAITS)  # by then everything is imported
    since = time.monotonic()
    whole = start(tiny_run(*options, f"output_dir={tmp_path / 'whole'}", recipe=recipe))
    whole.join(WAITS)
    assert whole.exitcode == 0
    seconds = time.monotonic() - since

    kills, attempt = 0, 0
    while kills < wanted:
        attempt += 1
        run = tmp_path / f"attempt{attempt}"
        resume = [f"output_dir={run}", "checkpoint.resume=auto"]
        arguments = tiny_run(*options, *resume, recipe=recipe)
        reached = 0
        for _ in range(10 * wanted):
            process = start(arguments)
            process.join(rng.uniform(0, seconds) if kills < wanted else WAITS)
            if process.exitcode is None:
                process.kill()
                process.join()
                kills += 1
            else:
                assert process.exitcode == 0, (tmp_path / "log").read_text()
                break
            saved = sorted(run.glob("checkpoints/step-??????"))
            assert [find_damage(path) for path in saved] == [None] * len(saved)
            newest = int(saved[-1].name.removeprefix("step-")) if saved else 0
            assert newest >= reached
            reached = newest
        compare(run, tmp_path / "whole")
    logging.getLogger(__name__).info("%d kills in %d runs", kills, attempt)


def compare(run, whole):
    folders = [path / "checkpoints" / f"step-{STEPS:06d}" for path in (run, whole)]
    files = [path.relative_to(folders[1]) for path in folders[1].rglob("*.safetensors")]
    assert len(files) == 2
    for name in files:
        one, two = (load_file(folder / name) for folder in folders)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)
    evaluations = [(path / "evaluations.jsonl").read_text() for path in (run, whole)]
    assert evaluations[0] == evaluations[1]
