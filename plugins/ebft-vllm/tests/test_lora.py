"""A policy with an adapter: the engine loads the merged weights, and computes the same."""

import pytest
import torch
from ebft_vllm import Vllm

from ebft.errors import SamplerMismatchError
from ebft.models.lora import add_adapter
from ebft.models.options import LoraOptions
from ebft.plans.strided import Strided
from tests.tiny import tiny_documents

pytestmark = pytest.mark.slow


def move(policy):
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))


@pytest.mark.parametrize("engine", ["in_process", "own_process"])
def test_lora_arrives_merged(make_policy, make_resources, engine, monkeypatch):
    policy = make_policy()
    add_adapter(policy, LoraOptions(rank=4), seed=0)
    options = Vllm(n=3, engine=engine, kv_cache_gib=0.1, start_timeout=200)
    sampler = options.build(make_resources(policy))
    try:
        for step in range(2):
            move(policy)
            assert sampler.probe(policy, step=step) > 0.05, "the engine is stale"
            assert sampler.sync(policy, step=step)["probe_gap"] < 1e-3
        contexts = Strided(start=40, stride=16, rollout_length=6)(tiny_documents([90]))
        assert sampler(contexts, step=0).tokens.shape == (len(contexts), 3, 6)
        # Without merging, the engine would load the base's weights and the probe would fail.
        monkeypatch.setattr("ebft_vllm.sampler.merged", lambda policy: make_policy())
        with pytest.raises(SamplerMismatchError, match="step 3"):
            sampler.sync(policy, step=2)
    finally:
        sampler.engine.close()
