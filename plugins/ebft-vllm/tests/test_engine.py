"""A real engine, in each mode: sync, probe, streams."""

import pytest
import torch
from ebft_vllm import Vllm
from ebft_vllm.local import LocalEngine

from ebft.errors import SamplerMismatchError
from ebft.plans.completion import Completion
from ebft.plans.strided import Strided
from tests.tiny import tiny_documents

pytestmark = pytest.mark.slow

STRIDED = Strided(start=40, stride=16, rollout_length=6)


@pytest.fixture(scope="module", params=["in_process", "own_process", "server"])
def sampler(request, make_policy, make_resources, serve):
    policy = make_policy()
    address = serve(real=True).address if request.param == "server" else None
    options = Vllm(
        n=3, temperature=0.8, engine=request.param, address=address, kv_cache_gib=0.1,
    )  # fmt: skip
    sampler = options.build(make_resources(policy))
    sampler.policy = policy
    yield sampler
    sampler.engine.close()


def move(policy, by):
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(by * torch.randn_like(parameter))


def test_a_sync_takes_over_every_update_and_the_probe_sees_it(sampler):
    for step in range(3):
        move(sampler.policy, 0.02)
        assert sampler.probe(sampler.policy, step=step) > 0.05, "the engine is stale"
        figures = sampler.sync(sampler.policy, step=step)
        assert figures["probe_gap"] < 1e-3
        assert figures["sync_seconds"] > 0


def test_a_tied_head_that_is_not_among_the_weights_is_found(sampler, make_policy):
    move(sampler.policy, 0.05)
    if type(sampler.engine).__name__ == "InProcessEngine":
        sampler.engine.load(dict(sampler.policy.named_parameters()))
    else:
        # There is a place for each weight, so an old head replaces a missing one.
        old = {"lm_head.weight": make_policy().lm_head.weight.detach()}
        sampler.engine.load(dict(sampler.policy.state_dict()) | old)
    assert sampler.probe(sampler.policy, step=0) > 0.05
    assert sampler.sync(sampler.policy, step=0)["probe_gap"] < 1e-3


def test_rollouts_are_reproducible_and_independent_of_company(sampler):
    documents = tiny_documents([90, 70])
    both = sampler(STRIDED(documents), step=4)
    again = sampler(STRIDED(documents), step=4)
    assert torch.equal(both.tokens, again.tokens)
    alone = sampler(STRIDED(documents[1:]), step=4)
    assert torch.equal(both.tokens[-len(alone.tokens) :], alone.tokens)
    assert not torch.equal(sampler(STRIDED(documents), step=5).tokens, both.tokens)
    assert len({tuple(t) for t in both.tokens[0].tolist()}) > 1, "n samples are n different ones"


def test_more_contexts_than_one_pass_of_the_engine_takes(policy, make_resources):
    # With chunked prefill, vLLM would split the last context in two, and fail with a seed.
    options = Vllm(
        n=2, engine="in_process", kv_cache_gib=0.1, max_length=96,
        engine_options={"max_num_batched_tokens": 112},
    )  # fmt: skip
    sampler = options.build(make_resources(policy))
    contexts = STRIDED(tiny_documents([90, 70, 80]))
    rollouts = sampler(contexts, step=0)
    sampler.engine.close()
    assert rollouts.tokens.shape == (len(contexts), 2, 6)
    assert rollouts.mask.all()


def test_rollouts_end_with_end_of_sequence(sampler):
    contexts = Completion(rollout_length=24)(tiny_documents([40] * 6, prompt_length=10))
    rollouts = sampler(contexts, step=0)
    ended = rollouts.mask.sum(-1) < 24
    assert ended.any()
    last = rollouts.tokens.gather(-1, rollouts.mask.sum(-1, keepdim=True) - 1)[..., 0]
    assert (last[ended] == 1).all()
    inside = (rollouts.tokens == 1) & rollouts.mask
    assert (inside.sum(-1) <= 1).all()


def test_a_stale_prefix_cache_stops_the_run(sampler, monkeypatch):
    if type(sampler.engine).__name__ != "InProcessEngine":
        pytest.skip("the sabotage is of this process; the code that it sabotages is the same")
    with monkeypatch.context() as patch:
        patch.setattr(LocalEngine, "_forget", lambda engine: None)
        move(sampler.policy, 0.05)
        with pytest.raises(SamplerMismatchError, match=r"step 8: .* by up to .*probe_tolerance"):
            sampler.sync(sampler.policy, step=7)
    assert sampler.sync(sampler.policy, step=8)["probe_gap"] < 1e-3
