"""One optimizer step's gradient does not depend on how the step is divided."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, OPTConfig

from ebft.errors import NumericalError
from ebft.models.attention import TREE
from ebft.models.layers import recompute_layers
from ebft.models.tree_log_probs import tree_log_probs
from ebft.plans.completion import Completion
from ebft.plans.strided import Strided
from ebft.samplers.hf_tree import HfTree
from ebft.training.loop import accumulate_gradients
from ebft.training.objective import ObjectiveOptions, cross_entropy_mask, policy_gradient_loss
from tests.tiny import VOCAB, plain_policy, tiny_documents, tiny_policy, tiny_resources, trained_on

RAGGED = {
    "strided": Strided(start=2, stride=3, rollout_length=4)(tiny_documents([20, 9, 14, 31, 6])),
    "completion": Completion(rollout_length=6)(tiny_documents([20, 9, 14, 31, 6], prompt_length=4)),
}


def gradient(
    policy, rollouts, advantages, *,
    micro_batch, gamma=0.3, reduction="sum", gradient_checkpointing=False,
    precision=torch.float32,
):  # fmt: skip
    policy.zero_grad()
    losses = accumulate_gradients(
        policy,
        *trained_on(rollouts, advantages, micro_batch=micro_batch),
        ObjectiveOptions(gamma=gamma, reduction=reduction),
        precision=precision,
        gradient_checkpointing=gradient_checkpointing,
        step=0,
    )
    return losses, torch.cat([p.grad.flatten() for p in policy.parameters()])


@pytest.mark.parametrize("plan", RAGGED)
@pytest.mark.parametrize("reduction", ["sum", "token_mean"])
@pytest.mark.parametrize("gamma", [0.0, 0.3])
def test_any_micro_batch_gives_the_same_loss_and_gradient(plan, reduction, gamma):
    policy = tiny_policy()
    rollouts = HfTree(n=3).build(tiny_resources(policy, eos=5))(RAGGED[plan], step=0)
    advantages = torch.randn(len(RAGGED[plan]), 3, dtype=torch.float64)
    whole, expected = gradient(
        policy, rollouts, advantages, micro_batch=5, gamma=gamma, reduction=reduction
    )
    assert expected.norm() > 1e-3
    for micro_batch in (1, 2, 3):
        losses, grad = gradient(
            policy, rollouts, advantages, micro_batch=micro_batch, gamma=gamma, reduction=reduction
        )
        assert losses.cross_entropy == pytest.approx(whole.cross_entropy, abs=1e-10)
        assert losses.policy_gradient[:2] == pytest.approx(whole.policy_gradient[:2], abs=1e-10)
        torch.testing.assert_close(grad, expected, atol=1e-10, rtol=1e-9)


def test_it_announces_each_micro_batch():
    policy, heard = tiny_policy(), []
    contexts = RAGGED["strided"].divided([2, 2, 1])
    accumulate_gradients(
        policy, contexts, None, ObjectiveOptions(gamma=1),
        precision=torch.float64, gradient_checkpointing=False, step=0, announce=heard.append,
    )  # fmt: skip
    assert heard == ["training 1/3", "training 2/3", "training 3/3"]


def test_without_cross_entropy_in_the_loss_it_costs_no_backward_and_changes_no_gradient():
    policy = tiny_policy()
    contexts = RAGGED["strided"]
    rollouts = HfTree(n=3).build(tiny_resources(policy))(contexts, step=0)
    advantages = torch.randn(len(contexts), 3, dtype=torch.float64)
    with torch.no_grad():
        documents = tree_log_probs(policy, rollouts).documents
    losses, grad = gradient(policy, rollouts, advantages, micro_batch=5, gamma=0.0)
    policy.zero_grad()
    sampled, trained = tree_log_probs(policy, rollouts)
    policy_gradient_loss(
        sampled, rollouts.mask, advantages, contexts=len(contexts), reduction="sum"
    ).backward()
    expected = torch.cat([p.grad.flatten() for p in policy.parameters()])
    torch.testing.assert_close(grad, expected, atol=1e-12, rtol=1e-12)
    assert trained.requires_grad
    assert not tree_log_probs(policy, rollouts, train_documents=False).documents.requires_grad
    # It is still there to be looked at.
    mask = cross_entropy_mask(contexts, "completion")
    assert losses.cross_entropy == pytest.approx(float(-documents[mask].mean()), abs=1e-12)


def test_bfloat16_gradients_are_float32_s_but_for_rounding():
    policy = plain_policy()
    resources = replace(tiny_resources(policy), precision=torch.bfloat16)
    rollouts = HfTree(n=3).build(resources)(RAGGED["strided"], step=0)
    advantages = torch.randn(len(RAGGED["strided"]), 3)
    losses, exact = gradient(policy, rollouts, advantages, micro_batch=2)
    _, rounded = gradient(policy, rollouts, advantages, micro_batch=2, precision=torch.bfloat16)
    assert losses.policy_gradient.sampler_gap < 0.1, "sampled in bfloat16, trained in float32"
    assert rounded.dtype == torch.float32
    assert torch.cosine_similarity(rounded, exact, dim=0) > 0.98


def test_sampler_gap_is_rounding_on_policy_and_large_off_policy():
    policy = tiny_policy()
    rollouts = HfTree(n=2).build(tiny_resources(policy))(RAGGED["strided"], step=0)
    advantages = torch.zeros(len(RAGGED["strided"]), 2)
    losses, _ = gradient(policy, rollouts, advantages, micro_batch=2)
    assert losses.policy_gradient.sampler_gap < 1e-9
    losses, _ = gradient(tiny_policy(seed=1), rollouts, advantages, micro_batch=2)
    assert losses.policy_gradient.sampler_gap > 0.1


def test_what_stands_after_a_rollout_s_end_has_no_part_in_the_gap():
    policy = tiny_policy()
    rollouts = HfTree(n=2).build(tiny_resources(policy))(RAGGED["strided"], step=0)
    mask = rollouts.mask & (torch.arange(4) < 3)
    ended = replace(rollouts, mask=mask, log_probs=rollouts.log_probs.where(mask, -50.0))
    losses, _ = gradient(policy, ended, torch.zeros(len(RAGGED["strided"]), 2), micro_batch=2)
    assert losses.policy_gradient.sampler_gap < 1e-9


def test_weights_that_are_not_finite_name_step_and_document():
    policy = tiny_policy()
    rollouts = HfTree(n=2).build(tiny_resources(policy))(RAGGED["strided"], step=0)
    with torch.no_grad():
        policy.model.norm.weight[0] = float("nan")
    with pytest.raises(NumericalError, match=r"step 1: log-probs of rollouts .* doc0"):
        gradient(policy, rollouts, torch.zeros(len(RAGGED["strided"]), 2), micro_batch=2)


def test_gradient_checkpointing_changes_memory_alone():
    policy = tiny_policy()
    resources = tiny_resources(policy)
    rollouts = HfTree(n=3).build(resources)(RAGGED["strided"], step=0)
    advantages = torch.randn(len(RAGGED["strided"]), 3, dtype=torch.float64)
    _, expected = gradient(policy, rollouts, advantages, micro_batch=2)
    before, forwards = [module.training for module in policy.modules()], []
    hook = policy.base_model.layers[0].mlp.register_forward_pre_hook(lambda *_: forwards.append(1))
    _, found = gradient(policy, rollouts, advantages, micro_batch=2, gradient_checkpointing=True)
    hook.remove()
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-9)
    assert len(forwards) == 2 * 3, "each of three micro-batches goes through a layer twice"
    assert [module.training for module in policy.modules()] == before
    # Sampling after it still has its cache.
    again = HfTree(n=3).build(resources)(RAGGED["strided"], step=0)
    assert torch.equal(again.tokens, rollouts.tokens)


def test_gradient_checkpointing_leaves_dropout_off():
    """Also where a layer does its dropout itself, as OPT's do."""
    config = OPTConfig(
        vocab_size=VOCAB, hidden_size=32, word_embed_proj_dim=32, ffn_dim=48, num_hidden_layers=2,
        num_attention_heads=4, dropout=0.5, max_position_embeddings=64,
        pad_token_id=0, bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    policy = AutoModelForCausalLM.from_config(config, attn_implementation=TREE).eval()
    rollouts = HfTree(n=3).build(tiny_resources(policy))(RAGGED["strided"], step=0)
    advantages = torch.randn(len(RAGGED["strided"]), 3)
    _, expected = gradient(policy, rollouts, advantages, micro_batch=2)
    _, found = gradient(policy, rollouts, advantages, micro_batch=2, gradient_checkpointing=True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert not any(module.training for module in policy.modules())


def test_a_model_without_layers_to_checkpoint_is_refused():
    with (
        pytest.raises(ValueError, match="no layers that can be checkpointed"),
        recompute_layers(torch.nn.Linear(2, 2), enabled=True),
    ):
        pass
