"""Runs that sample from `ebft-vllm serve`: failures, resume, and two processes that share it."""

import json
import os
import subprocess
import sys
import threading
from importlib.util import find_spec

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.conftest import RECIPES

pytestmark = pytest.mark.slow

PLUGIN = '''
import os, signal, socket, time
import ebft
from ebft_vllm import Vllm
from ebft_vllm.channel import Address
from ebft_vllm.sampler import VllmSampler

PID, RANK = int(os.environ.get("SERVER_PID", 0)), os.environ.get("RANK", "0")


class Sabotaged(Vllm):
    """vllm with a server that fails in step 2."""

    fault: str = "none"

    def build(self, resources):
        return SabotagedSampler(self, resources)


class SabotagedSampler(VllmSampler):
    def __call__(self, contexts, *, step):
        if step == 1 and self._options.fault in SIGNALS and RANK == "0":
            os.kill(PID, SIGNALS[self._options.fault])
        if step == 1 and self._options.fault == "hang":
            self.engine._timeout = 4.0
        if step == 1 and self._options.fault == "restart":
            until_it_listens(Address.parse(self._options.address))
        return super().__call__(contexts, step=step)

    def sync(self, policy, *, step):
        if step == 1 and self._options.fault == "kill_in_sync" and RANK == "0":
            os.kill(PID, signal.SIGKILL)
        return super().sync(policy, step=step)


SIGNALS = {"kill": signal.SIGKILL, "hang": signal.SIGSTOP, "restart": signal.SIGKILL}


def until_it_listens(address):
    time.sleep(1)
    while True:
        try:
            return socket.create_connection(address).close()
        except OSError:
            time.sleep(0.1)


@ebft.hookimpl
def register_samplers():
    return {"sabotaged": Sabotaged}
'''
VLLM = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
VARIANT = pytest.mark.skipif(find_spec("vllm") is None, reason="a variant, for `make test-vllm`")
"""With the stand-in too, but each takes half a minute."""
MAY_DIFFER = ["checkpoint.may_differ=[sampler.fault]"]
ONE = [sys.executable, "-m", "ebft.cli.main", "run"]
TWO = [sys.executable, "-m", "ebft.cli.tune", "run", "--nproc_per_node", "2"]


@pytest.fixture
def run(tmp_path, recipe):
    """Runs recipes/ebft_vllm.yaml on a tiny model with a server, as a user would."""
    (tmp_path / "sabotaged.py").write_text(PLUGIN)

    def run(server, *more, command=ONE):
        plugin = [f"plugins=[{tmp_path / 'sabotaged.py'}]", "sampler=sabotaged"]
        where = ["sampler.engine=server", f"sampler.address={server.address}"]
        return subprocess.run(
            [*command, *recipe(*plugin, *where, *more)],
            capture_output=True, text=True, timeout=400, cwd=RECIPES.parent, check=False,
            env={**os.environ, "SERVER_PID": str(server.process.pid), "OMP_NUM_THREADS": "1",
                 "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip

    return run


def steps_of(folder):
    """The logged figures of each step."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if "probe_gap" in line]


SLOW = "did not answer `sample` in time; if it was only slow, raise sampler.timeout"
RESTARTED = "was restarted, and has lost the policy's weights, during `sample`"


@pytest.mark.parametrize(
    ("fault", "says", "steps", "real"),
    [
        pytest.param("kill", "ended during `sample`", 1, False, id="kill"),
        pytest.param(
            "kill_in_sync", "ended during `load`", 2, False, id="kill_in_sync", marks=VARIANT
        ),
        pytest.param("hang", SLOW, 1, False, id="hang", marks=VARIANT),
        pytest.param("hang", SLOW, 1, True, id="hang_vllm", marks=VLLM),
        pytest.param("restart", RESTARTED, 1, False, id="restart", marks=VARIANT),
        pytest.param("restart", RESTARTED, 1, True, id="restart_vllm", marks=VLLM),
    ],
)
def test_a_server_that_fails_ends_the_run_with_one_line_and_a_checkpoint(
    serve, run, tmp_path, fault, says, steps, real
):
    server, restarted = serve(real=real), []
    if fault == "restart":

        def restart():
            server.process.wait()
            restarted.append(serve(real=real, port=server.port))

        restarting = threading.Thread(target=restart, daemon=True)
        restarting.start()
    done = run(server, f"sampler.fault={fault}")
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last == f"error: step 2: the vLLM server at {server.address} {says}", done.stderr
    assert "Traceback" not in done.stderr
    checkpoint = tmp_path / "run" / "checkpoints" / f"step-{steps:06d}"
    assert f"the policy is intact; checkpoint: {checkpoint}" in done.stderr
    AutoModelForCausalLM.from_pretrained(checkpoint)
    if fault == "restart":
        restarting.join()
        again = run(restarted[0], "checkpoint.resume=auto", *MAY_DIFFER)
        assert again.returncode == 0, again.stderr
        gaps = [line["probe_gap"] for line in steps_of(tmp_path / "run")]
        assert len(gaps) == 3
        assert max(gaps) < 0.005


def test_a_resumed_run_is_the_run_that_was_not_interrupted(serve, run, tmp_path):
    server = serve()
    whole = run(server, f"output_dir={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr
    broken = run(server, "sampler.fault=kill")
    assert broken.returncode == 1
    again = run(serve(), "checkpoint.resume=auto", *MAY_DIFFER)  # at another address
    assert again.returncode == 0, again.stderr
    one, other = (weights(tmp_path / name) for name in ("whole", "run"))
    assert all(one[name].equal(other[name]) for name in one)


SGD = ["optimizer._component_=torch.optim.SGD", "optimizer.lr=0.01"]
"""Weights move by their gradients as they are; Adam would make rounding as large as they are."""
LORA = ("model.lora={rank: 4, alpha: 8}",)
NOT_COMPARED = ("seconds", "per_second", "probe_gap", "memory", "time")


@pytest.mark.parametrize(
    ("lora", "real"),
    [
        pytest.param((), False, id="full"),
        pytest.param(LORA, False, id="merged", marks=VARIANT),
        pytest.param((), True, id="full_vllm", marks=VLLM),
        pytest.param((*LORA, "sampler.sync=adapter"), True, id="adapter_vllm", marks=VLLM),
    ],
)
def test_two_processes_that_share_a_server_do_what_one_does(serve, run, tmp_path, lora, real):
    server = serve("--max-lora-rank", "4", real=real)
    for name, command in (("one", ONE), ("two", TWO)):
        done = run(server, *SGD, *lora, f"output_dir={tmp_path / name}", command=command)
        assert done.returncode == 0, done.stderr
    alone, together = (steps_of(tmp_path / name) for name in ("one", "two"))
    assert len(alone) == len(together) == 3
    for line, other in zip(alone, together, strict=True):
        assert line.keys() == other.keys()
        assert max(line["probe_gap"], other["probe_gap"]) < 1e-3
        for key in line:
            if not any(word in key for word in NOT_COMPARED):
                assert other[key] == pytest.approx(line[key], rel=1e-5, abs=1e-5), key
    name = "adapter_model.safetensors" if lora else "model.safetensors"
    one, two = (weights(tmp_path / run, name) for run in ("one", "two"))
    assert one.keys() == two.keys()
    for key in one:
        assert two[key].numpy() == pytest.approx(one[key].numpy(), rel=1e-5, abs=1e-6), key


@pytest.mark.parametrize(
    ("fault", "steps"),
    [("kill", 1), pytest.param("kill_in_sync", 2, marks=VARIANT)],
)
def test_two_processes_whose_server_ends_save_a_checkpoint(serve, run, tmp_path, fault, steps):
    server = serve()
    done = run(server, f"sampler.fault={fault}", command=TWO)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if "error" in line]
    assert len(errors) == 1, done.stderr
    assert ": step 2: " in errors[0]
    assert f"the vLLM server at {server.address} ended during" in errors[0]
    assert "Traceback" not in done.stderr
    again = run(serve(), "checkpoint.resume=auto", *MAY_DIFFER, command=TWO)
    assert again.returncode == 0, again.stderr
    # A step whose sync failed is done, but was not logged.
    logged = [line["step"] for line in steps_of(tmp_path / "run")]
    assert logged == [step for step in (1, 2, 3) if step <= 1 or step > steps]


def test_another_token_ends_two_processes_with_one_line(serve, run, tmp_path):
    (tmp_path / "token").write_text("0123456789abcdef")
    done = run(serve(), f"sampler.token_file={tmp_path / 'token'}", command=TWO)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if "sampler.address" in line]
    assert len(errors) == 1, done.stderr
    assert "the server has another token, or none" in errors[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def weights(folder, name="model.safetensors"):
    return load_file(folder / "checkpoints" / "step-000003" / name)


def test_rollouts_are_sampled_while_a_step_trains_in_one_process(serve, run, tmp_path):
    ahead = ["training.sample_ahead=1", "objective.importance.level=sequence"]
    done = run(serve(), *ahead)
    assert done.returncode == 0, done.stderr
    first, *later = steps_of(tmp_path / "run")
    assert first["importance_effective"] == pytest.approx(1, abs=1e-4)
    assert len(later) == 2
    for line in later:  # rollouts of the weights one step before
        assert line["sampler_gap"] > 2 * first["sampler_gap"]
        assert line["sampling_wait_seconds"] >= 0
    refused = run(serve(), *ahead, f"output_dir={tmp_path / 'two'}", command=TWO)
    assert refused.returncode == 2, refused.stderr
    assert "the sampler Sabotaged cannot sample while 2 processes train" in refused.stderr
