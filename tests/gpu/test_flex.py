"""On a GPU: FlexAttention and the tree's own attention are attention under the dense mask."""

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from ebft.models.attention import DENSE, FLEX, TREE
from ebft.models.probe import probe_tree
from ebft.models.tree_log_probs import tree_log_probs
from ebft.plans.strided import Strided
from ebft.samplers.hf_tree import HfTree
from ebft.testing import tiny_documents, tiny_resources

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]
CONFIG = Qwen2Config(
    vocab_size=24, hidden_size=256, intermediate_size=256, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, initializer_range=0.1, pad_token_id=0,
    bos_token_id=1, eos_token_id=1,
)  # fmt: skip
PLAN = Strided(start=3, stride=4, rollout_length=5)
LENGTHS = [300, 170, 40]


def policy(attention, dtype=torch.float32):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG, attn_implementation=attention)
    return model.to("cuda", dtype).eval()


def sampled(model):
    documents = tiny_documents(LENGTHS, vocabulary=24)
    resources = tiny_resources(model)
    return HfTree(n=3).build(resources)(PLAN(documents).to(model.device), step=0)


def log_probs_and_gradients(model, rollouts):
    out = tree_log_probs(model, rollouts)
    weights = torch.linspace(-1, 1, out.rollouts.numel(), device=model.device)
    loss = (out.rollouts.flatten() * weights).sum() + out.documents.sum()
    return [out.rollouts.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


@pytest.mark.parametrize("attention", [TREE, FLEX])
def test_log_probs_and_gradients_are_the_dense_mask_s(attention):
    rollouts = sampled(policy(DENSE))
    ours = log_probs_and_gradients(policy(attention), rollouts)
    dense = log_probs_and_gradients(policy(DENSE), rollouts)
    for a, b in zip(ours, dense, strict=True):
        assert (a - b).norm() <= 2e-3 * b.norm() + 1e-5


@pytest.mark.parametrize("attention", [TREE, FLEX])
def test_bfloat16_is_as_near_to_float32_as_the_dense_mask_s(attention):
    rollouts = sampled(policy(DENSE))
    exact, *_ = log_probs_and_gradients(policy(DENSE), rollouts)
    ours, *_ = log_probs_and_gradients(policy(attention, torch.bfloat16), rollouts)
    dense, *_ = log_probs_and_gradients(policy(DENSE, torch.bfloat16), rollouts)
    assert (ours - exact).norm() <= 2 * (dense - exact).norm()


@pytest.mark.parametrize("attention", [TREE, FLEX])
def test_what_is_sampled_is_what_is_trained(attention):
    model = policy(attention)
    assert probe_tree(model, tiny_documents([60], vocabulary=24), PLAN) < 1e-3
    rollouts = sampled(model)
    with torch.no_grad():
        trained = tree_log_probs(model, rollouts).rollouts
    torch.testing.assert_close(trained, rollouts.log_probs, atol=1e-3, rtol=0)


def test_flex_is_compiled_once_for_trees_of_about_a_size():
    model = policy(FLEX)
    log_probs_and_gradients(model, sampled(model))
    with torch.compiler.set_stance("fail_on_recompile"):
        log_probs_and_gradients(model, sampled(model))
