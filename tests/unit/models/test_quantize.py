"""QLoRA: 4-bit layers compute with the numbers that they stand for, in the policy and its twins."""

import copy

import pytest
import torch
from torch import nn

from ebft.errors import UserError
from ebft.models.cost import QUANTIZED
from ebft.models.layers import compile_layers
from ebft.models.lora import add_adapter, merged, without_adapter
from ebft.models.options import LoraOptions
from ebft.models.probe import probe_tree
from ebft.models.quantize import BLOCK, dense, is_quantized, quantize_to
from ebft.models.tree_log_probs import document_log_probs
from ebft.models.weights import digest_weights
from ebft.plans.strided import Strided
from ebft.samplers.hf_tree import HfTree
from ebft.training.loop import accumulate_gradients
from ebft.training.objective import ObjectiveOptions
from tests.tiny import tiny_documents, tiny_policy, tiny_resources, trained_on

CPU = torch.device("cpu")
PLAN = Strided(start=3, stride=4, rollout_length=5)
CONTEXTS = PLAN(tiny_documents([19, 12]))


def quantized():
    policy = tiny_policy().float()
    quantize_to(policy, CPU)
    return policy


def decoded(policy):
    """The same model with the dense weights that its 4 bits stand for."""
    twin = copy.deepcopy(tiny_policy().float())
    twin.load_state_dict({k: dense(w) for k, w in policy.state_dict().items()})
    return twin


def adapted(policy, targets="all-linear"):
    add_adapter(policy, LoraOptions(rank=3, alpha=5.0, target_modules=targets), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in policy.parameters():
            if weight.requires_grad:
                weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return policy


@torch.no_grad()
def log_probs(policy):
    return document_log_probs(policy, CONTEXTS)


def test_weights_are_the_nearest_of_16_values_of_their_block():
    before, after = tiny_policy().float(), quantized()
    small = {name: w for name, w in after.named_parameters() if is_quantized(w)}
    projections = {name.split(".")[-2] for name in small}
    assert projections == {"q_proj", "k_proj", "v_proj", "o_proj",
                           "gate_proj", "up_proj", "down_proj"}  # fmt: skip
    for name, weight in before.named_parameters():
        if name not in small:
            assert torch.equal(after.get_parameter(name), weight)
            continue
        is_, was = (w.flatten().view(-1, BLOCK) for w in (dense(small[name]), weight))
        assert all(len(block.unique()) <= 16 for block in is_)
        # Half of the widest gap between NF4's values is 0.152 of the largest; scales are 8-bit.
        worst = (is_ - was).abs().amax(1) / was.abs().amax(1)
        assert worst.mean() > 0.01
        assert worst.max() < 0.17


def test_they_take_little_more_than_half_a_byte():
    weight = nn.Linear(1024, 512, bias=False)
    model = tiny_policy().float()
    model.model.layers[0].mlp.up_proj = weight
    quantize_to(model, CPU)
    nf4 = model.model.layers[0].mlp.up_proj.weight
    parts = (nf4.quantized_data, nf4.quantized_scalers, nf4.quantization_factor)
    taken = sum(part.numel() * part.element_size() for part in parts)
    assert taken == pytest.approx(QUANTIZED * 1024 * 512, rel=0.01)


@pytest.mark.parametrize(
    ("checkpointing", "compiled"),
    [(False, False), (True, False), pytest.param(True, True, marks=pytest.mark.slow)],
)
def test_forward_and_gradients_are_those_of_the_dense_model(checkpointing, compiled):
    policy = quantized()
    dense_twin = adapted(decoded(policy))
    adapted(policy)
    torch.testing.assert_close(log_probs(policy), log_probs(dense_twin), atol=1e-5, rtol=0)
    rollouts = HfTree(n=3).build(tiny_resources(policy))(CONTEXTS, step=0)
    advantages = torch.randn(len(CONTEXTS), 3, generator=torch.Generator().manual_seed(2))
    if compiled:
        compile_layers(policy)
    gradients = []
    for model in (policy, dense_twin):
        accumulate_gradients(
            model, *trained_on(rollouts, advantages), ObjectiveOptions(gamma=1.0),
            precision=torch.float32, gradient_checkpointing=checkpointing, step=0,
        )  # fmt: skip
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    for ours, theirs in zip(*gradients, strict=True):
        assert theirs.abs().max() > 0
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "v_proj")])
def test_twins_are_of_the_same_numbers(targets):
    policy = quantized()
    base = decoded(policy)
    adapted(policy, targets)
    alone = without_adapter(policy)
    torch.testing.assert_close(log_probs(alone), log_probs(base), atol=1e-5, rtol=0)
    whole = merged(policy)
    assert not any(is_quantized(weight) for weight in whole.parameters())
    assert any(is_quantized(weight) for weight in policy.parameters())
    torch.testing.assert_close(log_probs(whole), log_probs(policy), atol=1e-5, rtol=0)


def test_a_tree_equals_independent_rows():
    probe_tree(adapted(quantized()), tiny_documents([19, 12]), PLAN)


def test_it_is_another_base_model():
    plain = tiny_policy().float()
    assert digest_weights(plain) != digest_weights(quantized()) == digest_weights(quantized())


def test_a_size_that_blocks_do_not_divide_is_refused():
    policy = tiny_policy().float()
    policy.model.layers[0].mlp.up_proj = nn.Linear(31, 3)
    with pytest.raises(UserError, match=r"up_proj has 93 weights, no multiple of 64"):
        quantize_to(policy, CPU)
