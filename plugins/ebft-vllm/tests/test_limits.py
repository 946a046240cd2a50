"""How many tokens the sampler sends to the engine, tested with a fake engine."""

import copy

import pytest
import torch
from ebft_vllm import Vllm, engines
from ebft_vllm.messages import Sample
from ebft_vllm.probe import BLOCKS, LENGTH
from transformers import AutoModelForCausalLM

from ebft.errors import UserError
from ebft.plans.strided import Strided
from tests.tiny import tiny_documents

LONGROPE = {
    "rope_type": "longrope", "short_factor": [1.0] * 16, "long_factor": [2.0] * 16,
    "rope_theta": 1e4, "original_max_position_embeddings": 40,
}  # fmt: skip


class StandIn:
    """Always samples token 0, with probability 1."""

    def load(self, weights):
        pass

    def sample(self, job):
        self.longest = max(len(request.tokens) for request in job.requests)
        return [[Sample([0] * job.length, [0.0] * job.length)] * job.n] * len(job.requests)


@pytest.fixture
def build(monkeypatch, make_policy, make_resources):
    monkeypatch.setattr(engines, "require_vllm", lambda: None)
    monkeypatch.setattr(engines, "OwnProcessEngine", lambda start, **options: StandIn())

    def build(changes, **options):
        config = copy.deepcopy(make_policy().config)
        config.update(changes)
        policy = AutoModelForCausalLM.from_config(config).eval()
        return Vllm(n=1, probe_tolerance=1e9, **options).build(make_resources(policy))

    return build


def contexts(anchor):
    """Returns one context of the given number of tokens, with rollouts of 4."""
    plan = Strided(start=anchor, stride=anchor, rollout_length=4)
    return plan(tiny_documents([anchor + 4]))


@pytest.mark.parametrize(
    ("changes", "options", "limit"),
    [
        ({}, {}, 256),
        ({}, {"max_length": 64}, 64),
        ({"rope_parameters": LONGROPE, "max_position_embeddings": 160}, {}, 40),
    ],
    ids=["config", "max_length", "longrope"],
)
def test_contexts_and_the_probe_keep_to_what_the_model_reads(build, changes, options, limit):
    vllm = build(changes, **options)
    assert vllm.engine.longest == min(BLOCKS * 32 + 1, limit - LENGTH)
    vllm(contexts(limit - 4), step=0)
    with pytest.raises(UserError, match=f"sampler.max_length = {limit}: document doc0"):
        vllm(contexts(limit - 3), step=0)


def test_a_model_that_names_no_limit_has_none(build, monkeypatch):
    monkeypatch.setattr(engines, "context_length", lambda config: None)
    vllm = build({})
    assert vllm.engine.longest == BLOCKS * 32 + 1
    assert torch.equal(vllm(contexts(300), step=0).tokens, torch.zeros(1, 1, 4, dtype=torch.long))
