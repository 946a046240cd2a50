"""A model that vLLM accepts (head_dim 32) and is small enough to start an engine in seconds."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import copy
import random
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from ebft.models import attention
from ebft.parts.part import Resources
from tests.conftest import RECIPES
from tests.tiny import tiny_tokenizer

HERE = Path(__file__).parent
HAS_VLLM = find_spec("vllm") is not None
collect_ignore = [] if HAS_VLLM else [
    "test_distribution.py", "test_engine.py", "test_failures.py", "test_lora.py",
    "test_own_process.py",
]  # fmt: skip
CONFIG = LlamaConfig(
    vocab_size=24,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=32,
    max_position_embeddings=256,
    initializer_range=0.3,
    tie_word_embeddings=True,
    bos_token_id=None,
    eos_token_id=1,
    pad_token_id=0,
    attn_implementation=attention.TREE,
)


def tiny_policy(seed=0):
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(copy.deepcopy(CONFIG)).eval()


def tiny_resources(policy, seed=0):
    return Resources(
        policy=policy,
        tokenizer=tiny_tokenizer(),
        load_base=lambda: policy,
        device=torch.device("cpu"),
        precision=torch.float32,
        seed=seed,
    )


@pytest.fixture(scope="session")
def make_policy():
    return tiny_policy


@pytest.fixture(scope="session")
def make_resources():
    return tiny_resources


@pytest.fixture
def policy():
    return tiny_policy()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """The policy and its tokenizer in a folder that `from_pretrained` loads."""
    folder = tmp_path_factory.mktemp("model")
    tiny_policy().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


class ServerProcess:
    """`ebft-vllm serve`, with vLLM or with the stand-in, once it answers trainers."""

    def __init__(self, model, *arguments, port=0, real=False):
        program = [str(HERE / "stand_in.py")]
        if real:  # compiling would take longer than the tests
            program = ["-m", "ebft_vllm.command"]
            arguments = (*arguments, "--engine-options", '{"enforce_eager": true}')
        self.process = subprocess.Popen(
            [sys.executable, *program, "serve", str(model), "--port", str(port),
             "--kv-cache-gib", "0.1", *arguments],
            stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        self.said = []
        for line in self.process.stderr:
            self.said.append(line.strip())
            if line.startswith("serving "):
                break
        else:
            raise AssertionError(self.said)
        self.address = self.said[-1].split()[-1]
        self.port = int(self.address.rpartition(":")[2])
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        self.said += map(str.strip, self.process.stderr)

    def end(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def serve(model_folder):
    """Starts servers, which end with the tests."""
    started = []

    def start(*arguments, model=model_folder, **how):
        started.append(ServerProcess(model, *arguments, **how))
        return started[-1]

    yield start
    for server in started:
        server.end()


@pytest.fixture
def recipe(tmp_path, model_folder):
    """The arguments of a run of recipes/ebft_vllm.yaml on the tiny model, of seconds."""
    texts = tmp_path / "texts"
    texts.mkdir()
    rng = random.Random(0)
    for number in range(12):
        text = "".join(rng.choice("abcdefgh =") for _ in range(70))
        (texts / f"file{number}.py").write_text(text)

    def arguments(*more):
        return [
            str(RECIPES / "ebft_vllm.yaml"), f"model.path={model_folder}", f"data.path={texts}",
            "data.held_out=0.25", "documents.length=64", "plan.start=40", "plan.stride=8",
            "plan.rollout_length=4", "evaluation.documents=3", "training.steps=3",
            "sampler.kv_cache_gib=0.1", "optimizer.lr=0.01", "lr_scheduler=null",
            f"output_dir={tmp_path / 'run'}", *more,
        ]  # fmt: skip

    return arguments
