"""Weights come back from a folder to the last bit, or are refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from ebft.models.export import load_weights, save_policy
from tests.tiny import plain_policy, tiny_tokenizer


@pytest.fixture
def folder(tmp_path):
    save_policy(plain_policy(seed=1), tiny_tokenizer(), tmp_path)
    return tmp_path


def test_they_come_back(folder):
    policy = plain_policy(seed=0)
    load_weights(policy, folder)
    for name, weight in plain_policy(seed=1).state_dict().items():
        assert torch.equal(policy.state_dict()[name], weight)


def test_a_damaged_configuration_asks_for_nothing(folder):
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] = config["vocab_size"] = 10**9
    (folder / "config.json").write_text(json.dumps(config))
    load_weights(plain_policy(seed=0), folder)


@pytest.mark.parametrize("damage", ["missing", "extra", "shape"])
def test_other_weights_are_refused(folder, damage):
    file = folder / "model.safetensors"
    weights = load_file(file)
    name = "model.layers.1.mlp.up_proj.weight"
    if damage == "missing":
        del weights[name]
    elif damage == "extra":
        name = "model.layers.7.mlp.up_proj.weight"
        weights[name] = torch.zeros(2, 2)
    else:
        weights[name] = torch.zeros(3, 32)
    save_file(weights, file, metadata={"format": "pt"})
    policy = plain_policy(seed=0)
    with pytest.raises(
        ValueError, match=r"do not fit the model: .*layers\.[17]\.mlp\.up_proj|size"
    ):
        load_weights(policy, folder)
    for key, weight in plain_policy(seed=0).state_dict().items():
        assert torch.equal(policy.state_dict()[key], weight), "nothing has been loaded"
