"""The cost model's counts are those of the trees that are really grown."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    DeepseekV2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MixtralConfig,
    Qwen2MoeConfig,
    Qwen3MoeConfig,
)

from ebft.features.hidden_states import HiddenStates
from ebft.models.attention import TREE
from ebft.models.cost import QUANTIZED, DocumentTree, flops, memory
from ebft.models.lora import add_adapter, without_adapter
from ebft.models.options import LoraOptions
from ebft.models.shape import ModelShape
from ebft.plans.strided import Strided
from ebft.rollout.records import Rollouts
from ebft.rollout.rows import as_rows
from ebft.rollout.tree import grow
from ebft.samplers.hf_tree import HfTree
from ebft.training.loop import accumulate_gradients
from ebft.training.objective import ObjectiveOptions
from tests.tiny import tiny_documents, tiny_resources, trained_on
from tests.unit.models.test_architectures import ARCHITECTURES


def rollouts_of(contexts, n):
    tokens = torch.zeros(len(contexts), n, contexts.rollout_length, dtype=torch.long)
    return Rollouts(contexts, tokens, torch.zeros(tokens.shape), tokens == 0, 1.0)


@pytest.mark.parametrize(("start", "stride", "G", "n"), [(4, 4, 3, 2), (1, 1, 1, 1), (5, 7, 8, 4)])
def test_tokens_and_attended_pairs(start, stride, G, n):
    contexts = Strided(start=start, stride=stride, rollout_length=G)(tiny_documents([40]))
    grown = grow(rollouts_of(contexts, n), steps=G)
    tree = DocumentTree(40, contexts.anchor.tolist(), n, G)
    assert tree.tokens == grown.tokens.numel()
    assert tree.pairs(G) == int(grown.mask.dense.sum())


@pytest.mark.parametrize(("start", "stride", "G", "n"), [(4, 4, 3, 2), (1, 1, 1, 1), (5, 7, 8, 4)])
def test_tokens_and_attended_pairs_of_rows(start, stride, G, n):
    contexts = Strided(start=start, stride=stride, rollout_length=G)(tiny_documents([40]))
    mask = grow(rollouts_of(contexts, n), steps=G).mask
    lengths = torch.cat([batch.there.sum(1) for batch in as_rows(mask)])
    rows = DocumentTree(40, contexts.anchor.tolist(), n, G, on_rows=True)
    assert rows.tokens == lengths.sum()
    assert rows.pairs(G) == (lengths * (lengths + 1) // 2).sum()
    tree = replace(rows, on_rows=False)
    last = int(contexts.anchor[-1])
    read = replace(tree, length=last)
    assert rows.sampling_tokens == tree.sampling_tokens == read.predicting_tokens
    assert rows.sampling_pairs(G) == tree.sampling_pairs(G) == read.pairs(G)


def test_the_budget_of_the_paper_s_documents():
    """1,024 tokens, start 8, stride 8, G 8, n 4: the figures the design was made from."""
    contexts = Strided(start=8, stride=8, rollout_length=8)(tiny_documents([1024]))
    tree = DocumentTree(1024, contexts.anchor.tolist(), n=4, rollout_length=8)
    assert len(tree.anchors) == 127
    assert tree.tokens == 5088
    assert tree.predicting_tokens == 4580
    assert tree.sampling_tokens == 4572
    assert tree.for_features.tokens == 5088
    assert replace(tree, on_rows=True).tokens == 1024 + 4 * sum(tree.anchors) + 4 * 127 * 8


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameters_are_the_model_s(name):
    """All but norms and biases."""
    config = ARCHITECTURES[name]
    policy = AutoModelForCausalLM.from_config(config)
    matrices = sum(p.numel() for p in policy.parameters() if p.dim() > 1)
    assert ModelShape.of(config).parameters == matrices


MIXTURE = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": None,
}  # fmt: skip
MIXTURES = {
    "mixtral": MixtralConfig(**MIXTURE, num_local_experts=4, num_experts_per_tok=2),
    "qwen3": Qwen3MoeConfig(
        **MIXTURE, head_dim=8, num_experts=8, num_experts_per_tok=3, moe_intermediate_size=16
    ),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_has_all_experts_and_a_token_some_of_them(name):
    config = MIXTURES[name]
    policy, shape = AutoModelForCausalLM.from_config(config), ModelShape.of(config)
    assert shape.parameters == sum(p.numel() for p in policy.parameters() if p.dim() > 1)
    others = shape.experts - shape.experts_per_token
    one = 3 * 32 * {"mixtral": 48, "qwen3": 16}[name]
    assert shape.layer_weights - shape.active_weights == others * one
    add_adapter(policy, LoraOptions(rank=2), seed=0)
    trained = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    assert shape.adapter_weights(rank=2) == trained, "experts have none"
    with pytest.raises(ValueError, match="known after loading"):
        memory(shape, DocumentTree(9, [4], 2, 2), micro_batch=1, bytes_per_value=4, quantized=True)


def test_activations_of_a_mixture_are_those_of_the_experts_of_a_token():
    """Kept for each of them: input and output, and gate, up, activation and product of its MLP."""
    config = MIXTURES["qwen3"]
    shape, tree = ModelShape.of(config), DocumentTree(9, [4], 2, 2)
    tokens = 9 + 2 * 2 - 2

    def activations(per_token, checkpointing=False):
        of = replace(shape, experts_per_token=per_token)
        how = {"micro_batch": 1, "bytes_per_value": 4, "gradient_checkpointing": checkpointing}
        return memory(of, tree, **how).activations

    each, gradients = 4 * (2 * 32 + 4 * 16), 4 * 3 * 32
    assert activations(3) - activations(2) == tokens * (config.num_hidden_layers * each + gradients)
    assert activations(3, True) - activations(2, True) == tokens * (each + gradients)


def test_layers_of_other_kinds_are_not_estimated():
    config = Qwen2MoeConfig(**MIXTURE, num_experts=4, moe_intermediate_size=16)
    with pytest.raises(ValueError, match="more than attention and experts with their router"):
        ModelShape.of(config)  # it has a shared expert too
    config = Qwen3MoeConfig(**MIXTURE, num_experts=4, mlp_only_layers=[0])
    with pytest.raises(ValueError, match="not all of its layers are mixtures"):
        ModelShape.of(config)
    config = DeepseekV2Config(**MIXTURE, first_k_dense_replace=2)
    with pytest.raises(ValueError, match="more than attention and one MLP"):
        ModelShape.of(config)


class Counter(FlopCounterMode):
    """torch's own count, with the visible pairs of the CPU's attention kernel, which it leaves out.

    The kernel is used on trunks alone, causally.
    """

    def __init__(self):
        def forward(q, _k, _v, *_args, **_kwargs):
            B, H, S, d = q
            return 2 * B * H * S * (S + 1) * d

        def backward(_grad, q, *_args, **_kwargs):
            return forward(q, None, None) * 5 // 2

        aten = torch.ops.aten
        super().__init__(
            display=False,
            custom_mapping={
                aten._scaled_dot_product_flash_attention_for_cpu: forward,
                aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
            },
        )

    def of(self, work) -> int:
        with self:
            work()
        return self.get_total_flops()


SIZES = {
    "vocab_size": 2000, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 8,
    "num_attention_heads": 4, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None,
    "attn_implementation": TREE,
}  # fmt: skip
GATED = LlamaConfig(**SIZES, num_key_value_heads=2)
PLAIN = GPTNeoXConfig(**SIZES, tie_word_embeddings=False)
MIXED = Qwen3MoeConfig(
    **SIZES, num_key_value_heads=2, head_dim=32, num_experts=8, num_experts_per_tok=2,
    moe_intermediate_size=96,
)  # fmt: skip


@pytest.mark.parametrize(
    ("config", "checkpointing", "lora", "gamma"),
    [
        (GATED, False, False, 1.0),
        (GATED, True, False, 0.0),
        (GATED, False, True, 0.0),
        (GATED, True, True, 1.0),
        (PLAIN, False, False, 1.0),
        (PLAIN, True, False, 1.0),
        (MIXED, False, False, 1.0),
        (MIXED, True, True, 1.0),
    ],
)
def test_flops_of_a_step_are_torch_s_own_count_to_5_per_cent(config, checkpointing, lora, gamma):
    policy, shape = AutoModelForCausalLM.from_config(config).eval(), ModelShape.of(config)
    if shape.is_mixture:
        policy.set_experts_implementation("eager")  # of which torch counts every product
    adapter = 0
    if lora:
        add_adapter(policy, LoraOptions(rank=8), seed=0)
        adapter = sum(p.numel() for p in policy.parameters() if p.requires_grad)
        assert adapter == shape.adapter_weights(rank=8)
    resources = tiny_resources(policy, base=without_adapter(policy) if lora else policy)
    contexts = Strided(start=8, stride=8, rollout_length=8)(tiny_documents([192]))
    sampler = HfTree(n=4).build(resources)
    rollouts = sampler(contexts, step=0)
    feature_map = HiddenStates(depths=(0.25, 0.75)).build(resources)

    def train():
        accumulate_gradients(
            policy, *trained_on(rollouts, torch.ones(len(contexts), 4)),
            ObjectiveOptions(gamma=gamma),
            precision=torch.float32, gradient_checkpointing=checkpointing, step=0,
        )  # fmt: skip

    tree = DocumentTree(192, contexts.anchor.tolist(), n=4, rollout_length=8)
    predicted = flops(
        shape, tree, depth=0.75, gradient_checkpointing=checkpointing, adapter=adapter,
        trains_documents=gamma > 0,
    )  # fmt: skip
    assert Counter().of(lambda: sampler(contexts, step=0)) == pytest.approx(
        predicted.sampling, rel=0.05
    )
    assert Counter().of(lambda: feature_map(rollouts)) == pytest.approx(
        predicted.features, rel=0.05
    )
    assert Counter().of(train) == pytest.approx(predicted.training, rel=0.05)


def test_on_gpus_nothing_of_an_update_is_whole_and_no_layer_is_cast():
    """FSDP gathers a layer in bfloat16, and each process updates its own part of the weights."""
    shape = ModelShape.of(GATED)
    of = partial(
        memory, shape, DocumentTree(64, [8, 16], 2, 4),
        micro_batch=1, bytes_per_value=2, on_cpu=False,
    )  # fmt: skip
    alone, shared = of(shards=1), of(shards=8)
    assert alone.update == 4 * shape.parameters
    assert shared.update == alone.update / 8
    layers = shape.layers * shape.layer_weights
    assert alone.activations - shared.activations == 2 * layers
    whole = of(shards=1, adapter=100, quantized=True)
    assert whole.loading == 0, "a base in 4 bits arrives layer by layer"
    assert of(on_cpu=True, adapter=100, quantized=True).loading == 4 * shape.parameters


def test_processes_share_all_but_what_they_gather():
    """Each has its part of the policy and of the frozen model, and for an evaluation all of both;
    matrices in 4 bits are in each."""
    shape = ModelShape.of(GATED)
    N, layers = shape.parameters, shape.layers * shape.layer_weights
    outside = N - layers
    of = partial(
        memory, shape, DocumentTree(64, [8, 16], 2, 4),
        micro_batch=1, bytes_per_value=4, on_cpu=True, shards=4,
    )  # fmt: skip
    found, gathered = of(), 2 * shape.layer_weights + outside
    assert found.weights == found.frozen == 4 * (N / 4 + gathered)
    assert found.loading == 4 * N / 4
    assert of(loads_whole=True).loading == 4 * N
    assert of(shards=1).evaluation == of(evaluates=False).evaluation == 0
    without_gradients = found.process + found.weights + found.frozen + found.optimizer
    shares = 2 * 4 * N / 4
    assert without_gradients - found.process - found.optimizer - 2 * 4 * gathered == shares
    assert found.weights + found.frozen + found.evaluation == shares + 2 * 4 * N
    kept = of(samples_whole=True).sampling - found.sampling
    assert found.weights + kept == 4 * N / 4 + 4 * N, "the policy's alone"
    assert of(shards=1, samples_whole=True).sampling == of(shards=1).sampling
    quantized = of(adapter=100, quantized=True, frozen=False)
    assert quantized.weights == QUANTIZED * layers + 4 * ((outside + 100) / 4 + outside)
    assert quantized.evaluation == 0, "the rest is gathered in any forward"


def test_sampling_has_a_cache_and_four_copies_of_some_rows_of_logits():
    shape = ModelShape.of(LlamaConfig(**{**SIZES, "vocab_size": 100_000}))
    for anchors, rows in (([8], 4), (list(range(8, 264)), 512)):
        tree = DocumentTree(600, anchors, n=4, rollout_length=4)
        needed = memory(shape, tree, micro_batch=1, bytes_per_value=4)
        cache = 2 * 4 * 8 * 128 * tree.sampling_tokens
        assert needed.sampling == 4 * 4 * rows * 100_000 + cache
        assert (
            needed.total >= needed.weights + needed.gradients + needed.optimizer + needed.sampling
        )
