"""A policy with an adapter: the engine loads merged weights, or the adapter alone."""

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


@pytest.mark.parametrize("sync", ["merged", "adapter"])
@pytest.mark.parametrize("engine", ["in_process", "own_process", "server"])
def test_lora_arrives(make_policy, make_resources, serve, engine, sync, monkeypatch):
    policy = make_policy()
    add_adapter(policy, LoraOptions(rank=4), seed=0)
    address = None
    if engine == "server":
        address = serve("--max-lora-rank", "4", real=True).address
    options = Vllm(n=3, engine=engine, address=address, sync=sync, kv_cache_gib=0.1)
    sampler = options.build(make_resources(policy))
    try:
        for step in range(2):
            move(policy)
            assert sampler.probe(policy, step=step) > 0.05, "the engine is stale"
            assert sampler.sync(policy, step=step)["probe_gap"] < 1e-3
        contexts = Strided(start=40, stride=16, rollout_length=6)(tiny_documents([90]))
        assert sampler(contexts, step=0).tokens.shape == (len(contexts), 3, 6)
        # Without the adapter, the engine would sample from the base and the probe would fail.
        monkeypatch.setattr("ebft_vllm.sampler.merged", lambda policy: make_policy())
        monkeypatch.setattr(sampler.engine, "load_adapter", lambda folder: None)
        move(policy)
        with pytest.raises(SamplerMismatchError, match="step 3"):
            sampler.sync(policy, step=2)
    finally:
        sampler.engine.close()
