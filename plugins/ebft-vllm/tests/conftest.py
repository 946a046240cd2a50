"""A model that vLLM accepts (head_dim 32) and is small enough to start an engine in seconds."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from ebft.models import attention
from ebft.parts.part import Resources

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


class Eos:
    eos_token_id = 1


def tiny_resources(policy, seed=0):
    return Resources(
        policy=policy,
        tokenizer=Eos(),
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
