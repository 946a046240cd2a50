"""One process ≡ two ≡ two with accumulation: rollouts, advantages, losses, gradients, weights."""

import pytest
import torch

PLAIN = [
    "optimizer._component_=torch.optim.SGD",
    "optimizer.lr=0.01",
    "training.clip_grad_norm=1000",
]
"""Weights move by their gradients as they are."""
LOGITS = ["feature_map=next_token_log_probs", "evaluation.evaluators=[]"]
"""A feature map that needs the LM head, and no evaluation that would gather it."""
CHECKPOINTED = "training.gradient_checkpointing=true"
KEPT = "sampler.keep_weights=true"
ROWS = "model.attention=rows"
"""Then each process has as many forwards as its documents need, and others wait for them."""
STATEFUL = [
    "baseline=moving_average",
    "transforms=[{_component_: whiten_running, refresh_every: 1}]",
    "objective.importance.level=token",
    "training.clip_grad_norm=0.1",
]
"""Everything that pools over a step's contexts, and gradients that are clipped."""


def together(step, key):
    """What all processes did in a step, by context."""
    merged = {}
    for rank in step:
        assert not merged.keys() & rank[key].keys(), "two processes had the same context"
        merged |= rank[key]
    return merged


def assert_same_rollouts(alone, processes):
    assert together(alone, "tokens") == together(processes, "tokens")
    expected = together(alone, "advantages")
    for place, advantages in together(processes, "advantages").items():
        # Whitening enlarges rounding where features hardly vary.
        assert advantages == pytest.approx(expected[place], rel=1e-4, abs=1e-4)
    loss = pytest.approx(alone[0]["policy_gradient"], rel=1e-5, abs=1e-5)
    assert all(process["policy_gradient"] == loss for process in processes)
    if alone[0]["importance"]:
        statistics = pytest.approx(alone[0]["importance"], abs=1e-5)
        assert all(process["importance"] == statistics for process in processes)


def assert_same(one, many):
    (steps, weights), (steps_of_many, weights_of_many) = one, many
    assert len(steps) == len(steps_of_many)
    for alone, processes in zip(steps, steps_of_many, strict=True):
        dealt = [name for process in processes for name in process["documents"]]
        assert sorted(dealt) == sorted(alone[0]["documents"])
        for process in processes:
            assert process["cross_entropy"] == pytest.approx(alone[0]["cross_entropy"], rel=1e-5)
            assert process["grad_norm"] == pytest.approx(alone[0]["grad_norm"], rel=1e-5)
        if "tokens" in alone[0]:
            assert_same_rollouts(alone, processes)
    assert weights.keys() == weights_of_many.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weights_of_many[name], weight, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "recipe", "micro_batch", "overrides"),
    [
        pytest.param(2, "ebft_full", 2, PLAIN, id="plain"),
        pytest.param(2, "ebft_full", 1, [*PLAIN, CHECKPOINTED], id="accumulated"),
        pytest.param(2, "ebft_full", 1, [*STATEFUL, KEPT], id="stateful"),
        pytest.param(4, "ebft_full", 1, [*PLAIN, "parallel.replicas=2"], id="replicated"),
        pytest.param(2, "ebft_full", 1, [*PLAIN, ROWS], id="rows"),
        pytest.param(2, "sft_full", 1, PLAIN, id="sft"),
        pytest.param(2, "ebft_lora", 1, PLAIN, id="lora"),
        pytest.param(2, "ebft_lora", 1, [*PLAIN, *LOGITS], id="lora_logits"),
        pytest.param(2, "ebft_lora", 1, [*PLAIN, ROWS, CHECKPOINTED], id="lora_rows"),
    ],
)
def test_processes_equal_one(steps_of, processes, recipe, micro_batch, overrides):
    one = steps_of("one", *overrides, "training.micro_batch=4", recipe=recipe)
    micro_batch = f"training.micro_batch={micro_batch}"
    many = steps_of("many", *overrides, micro_batch, processes=processes, recipe=recipe)
    assert all(len(rank["documents"]) == 4 // processes for step in many[0] for rank in step)
    assert_same(one, many)
