"""Runs that fail: one line, in time, and a checkpoint with every update."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from ebft_vllm import Vllm
from transformers import AutoModelForCausalLM

from ebft.errors import EngineError
from ebft.runs.metrics_log import read_metrics
from tests.conftest import RECIPES

pytestmark = pytest.mark.slow

PLUGIN = '''
import os, signal
import ebft
from ebft_vllm import Vllm
from ebft_vllm.sampler import VllmSampler


class Sabotaged(Vllm):
    """vllm with a fault in step 2."""

    fault: str = "none"

    def build(self, resources):
        return SabotagedSampler(self, resources)


class SabotagedSampler(VllmSampler):
    def __call__(self, contexts, *, step):
        if step == 1 and self._options.fault == "kill":
            os.kill(self.engine.pid, signal.SIGKILL)
        if step == 1 and self._options.fault == "hang":
            os.kill(self.engine.pid, signal.SIGSTOP)
        return super().__call__(contexts, step=step)

    def sync(self, policy, *, step):
        if step == 1 and self._options.fault == "skip":
            self.engine.load = lambda weights: None
        return super().sync(policy, step=step)


@ebft.hookimpl
def register_samplers():
    return {"sabotaged": Sabotaged}
'''


@pytest.fixture
def run(tmp_path, recipe):
    """Runs recipes/ebft_vllm.yaml on a tiny model with a faulty sampler, as a user would."""
    (tmp_path / "sabotaged.py").write_text(PLUGIN)

    def run(*more):
        plugin = [f"plugins=[{tmp_path / 'sabotaged.py'}]", "sampler=sabotaged"]
        return subprocess.run(
            [sys.executable, "-m", "ebft.cli.main", "run", *recipe(*plugin, *more)],
            capture_output=True, text=True, timeout=300, cwd=RECIPES.parent,
        )  # fmt: skip

    return run


@pytest.mark.parametrize(
    ("fault", "says", "steps"),
    [
        ("skip", "error: step 2: after the sync, the vLLM engine's log-probs differ from", 2),
        ("kill", "error: step 2: the vLLM engine's process was killed by signal 9", 1),
        ("hang", "error: step 2: the vLLM engine's process did not answer `sample` within 15 s", 1),
    ],
)
def test_a_fault_ends_the_run_with_one_line_and_a_checkpoint(run, tmp_path, fault, says, steps):
    done = run(f"sampler.fault={fault}", "sampler.timeout=15")
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(says), done.stderr
    assert "Traceback" not in done.stderr
    checkpoint = tmp_path / "run" / "checkpoints" / f"step-{steps:06d}"
    assert f"the policy is intact; checkpoint: {checkpoint}" in done.stderr
    AutoModelForCausalLM.from_pretrained(checkpoint)


def test_without_a_fault_every_sync_is_logged_with_its_probe(run, tmp_path):
    done = run()
    assert done.returncode == 0, done.stderr
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    gaps = [line.figures["probe_gap"] for line in lines if "probe_gap" in line.figures]
    assert len(gaps) == 3, lines
    assert max(gaps) < 0.005


def test_an_engine_that_does_not_start_in_time_is_ended(policy, make_resources):
    before = set(psutil.Process().children())
    since = time.perf_counter()
    with pytest.raises(EngineError, match=r"did not answer `start` within 1 s .*start_timeout"):
        Vllm(start_timeout=1).build(make_resources(policy))
    assert time.perf_counter() - since < 60
    assert set(psutil.Process().children()) <= before


def test_an_engine_that_cannot_start_says_why(policy, make_resources):
    with pytest.raises(EngineError, match=r"failed at `start`: .*no_such_option"):
        Vllm(engine_options={"no_such_option": 1}).build(make_resources(policy))


def test_the_engine_ends_with_the_trainer(tmp_path):
    program = (
        "from conftest import *; from ebft_vllm import Vllm; import os, time, json\n"
        "s = Vllm(kv_cache_gib=0.1).build(tiny_resources(tiny_policy()))\n"
        "print(json.dumps(s.engine.pid), flush=True); time.sleep(600)"
    )
    here = os.path.dirname(__file__)
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=here, stdout=subprocess.PIPE
    ) as trainer:
        line = next(line for line in trainer.stdout if line.strip().isdigit())
        engine = psutil.Process(json.loads(line))
        trainer.send_signal(signal.SIGKILL)
    engine.wait(timeout=30)
