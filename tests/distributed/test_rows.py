"""Three processes read, digest and write their own rows of a model, as one does the whole."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, MixtralConfig

from ebft.models.weights import digest_weights
from ebft.testing.tiny import VOCAB, tiny_tokenizer
from tests.distributed.conftest import REPOSITORY

SIZES = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 100, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
CONFIGS = {
    "tied": LlamaConfig(**SIZES, tie_word_embeddings=True, attention_bias=True),
    "untied": LlamaConfig(**SIZES, tie_word_embeddings=False),
    # transformers has one matrix for all experts, and on disk one for each.
    "experts": MixtralConfig(**SIZES, num_local_experts=4),
}
"""Sizes that three processes do not divide evenly."""


@pytest.fixture(scope="module")
def divided(tmp_path_factory):
    """The folder of each model, with what three processes found and wrote."""
    folder = tmp_path_factory.mktemp("rows")
    for name, config in CONFIGS.items():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():  # negative zeros are values too
            parameter.data.view(-1)[::7] = -0.0
        model.save_pretrained(folder / name)
        tiny_tokenizer().save_pretrained(folder / name)
    worker = str(REPOSITORY / "tests/distributed/rows_worker.py")
    command = ["-m", "torch.distributed.run", "--nproc_per_node", "3", worker, str(folder)]
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, *command, *CONFIGS], env={**os.environ, **environment},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_rows_are_those_of_the_whole(divided, name):
    found = [json.loads((divided / f"{name}-{rank}.json").read_text()) for rank in range(3)]
    model = AutoModelForCausalLM.from_pretrained(divided / name, dtype=torch.float32)
    total = sum(p.numel() for p in model.parameters())
    assert {one["digest"] for one in found} == {digest_weights(model)}
    assert sum(one["values"] for one in found) == total
    assert max(one["values"] for one in found) < 0.5 * total
    assert {one["loaded_rows"] for one in found} == {name != "experts"}
    saved = divided / f"{name}-saved"
    one, two = (load_file(folder / "model.safetensors") for folder in (divided / name, saved))
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert torch.equal(value.view(torch.int32), two[key].view(torch.int32)), key
    with safe_open(saved / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    again = AutoModelForCausalLM.from_pretrained(saved, dtype=torch.float32)
    assert digest_weights(again) == digest_weights(model)
    assert found[0]["logits"] == pytest.approx(logits(model), abs=1e-5)


def logits(model):
    with torch.no_grad():
        return model(torch.arange(6)[None]).logits.flatten().tolist()
