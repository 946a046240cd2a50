"""Trees over the decoders of several families: right, or refused, never silently wrong."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPTNeoXConfig,
    GptOssConfig,
    GraniteConfig,
    HyperCLOVAXConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)
from transformers.models.gemma2.modeling_gemma2 import Gemma2PreTrainedModel

import ebft.models.flex  # noqa: F401  (transformers knows it from then on)
from ebft.errors import NumericalError, UserError
from ebft.models import probe
from ebft.models.attention import DENSE, FLEX, TREE, keep_caps, on_tree
from ebft.models.probe import TOLERANCE, probe_tree
from ebft.models.tree_log_probs import tree_log_probs
from ebft.plans.completion import Completion
from ebft.plans.strided import Strided
from ebft.samplers.hf_tree import HfTree
from tests.tiny import VOCAB, tiny_documents, tiny_resources

SIZES = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
    "num_attention_heads": 4, "initializer_range": 0.3, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 1,
}  # fmt: skip
GROUPED = SIZES | {"num_key_value_heads": 2}
ARCHITECTURES = {
    "llama": LlamaConfig(**GROUPED),
    "mistral": MistralConfig(**GROUPED, sliding_window=None),
    "qwen2": Qwen2Config(**GROUPED),
    "qwen3": Qwen3Config(**GROUPED, head_dim=8),
    "gemma3": Gemma3TextConfig(**GROUPED, head_dim=8, sliding_window=64),
    "gpt_neox": GPTNeoXConfig(**SIZES),
    "phi3": Phi3Config(**GROUPED),
    "granite": GraniteConfig(**GROUPED, logits_scaling=8.0),
    "hyperclovax": HyperCLOVAXConfig(**GROUPED, logits_scaling=0.25),
    "cohere": CohereConfig(**GROUPED, logit_scale=0.25),
}
PLAN = Strided(start=3, stride=4, rollout_length=5)


def model(config, attention=TREE):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


@pytest.mark.parametrize("attention", [TREE, FLEX, DENSE])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_tree_equals_rows(name, attention):
    policy, documents = model(ARCHITECTURES[name], attention), tiny_documents([30, 17])
    assert probe_tree(policy, documents, PLAN) < 1e-4
    # What was sampled on a cache is what is trained on.
    r = HfTree(n=3).build(tiny_resources(policy))(PLAN(documents), step=0)
    with torch.no_grad():
        trained = tree_log_probs(policy, r).rollouts
    torch.testing.assert_close(trained, r.log_probs, atol=1e-4, rtol=0)


OF_THEIR_OWN = {
    "gemma3": Gemma3TextConfig(**GROUPED, head_dim=8, sliding_window=6),
    "mistral": MistralConfig(**GROUPED, sliding_window=6),
    "gemma2": Gemma2Config(**GROUPED, head_dim=8, sliding_window=6, attn_logit_softcapping=5.0),
    "gpt_oss": GptOssConfig(
        **GROUPED, head_dim=8, sliding_window=6, num_local_experts=4, num_experts_per_tok=2
    ),
}
"""Windows that are shorter than the documents, capped scores, sinks."""


@pytest.mark.parametrize("attention", [TREE, DENSE])
@pytest.mark.parametrize("name", OF_THEIR_OWN)
def test_a_tree_with_other_scores_equals_rows(name, attention):
    policy, documents = model(OF_THEIR_OWN[name], attention), tiny_documents([30, 17])
    assert probe_tree(policy, documents, PLAN) < 1e-4
    r = HfTree(n=3).build(tiny_resources(policy))(PLAN(documents), step=0)
    with torch.no_grad():
        trained = tree_log_probs(policy, r).rollouts
    torch.testing.assert_close(trained, r.log_probs, atol=1e-4, rtol=0)


def test_caps_are_kept_where_transformers_offers_an_attention_without_them(monkeypatch):
    """As 5.17 does for Gemma 2."""
    monkeypatch.setattr(Gemma2PreTrainedModel, "_supports_sdpa", True)
    documents = tiny_documents([30, 17])
    assert probe_tree(model(OF_THEIR_OWN["gemma2"], TREE), documents, PLAN) < 1e-4
    policy, tokens = model(OF_THEIR_OWN["gemma2"], "sdpa"), documents[0].tokens[None]
    with torch.no_grad():
        keep_caps(policy)
        ours = policy(input_ids=tokens).logits
        capped = model(OF_THEIR_OWN["gemma2"], "eager")(input_ids=tokens).logits
    torch.testing.assert_close(ours, capped)


@pytest.mark.parametrize("name", OF_THEIR_OWN)
def test_flex_refuses_other_scores(name):
    policy = model(OF_THEIR_OWN[name], FLEX)
    with pytest.raises(UserError, match=r"set model\.attention=tree") as error:
        probe_tree(policy, tiny_documents([30, 17]), PLAN)
    assert "Parameter" not in str(error.value), "a sink's values are not printed"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_attention_without_trees_computes_rows(name):
    policy = model(ARCHITECTURES[name], "eager")
    assert not on_tree(policy)
    assert probe_tree(policy, tiny_documents([30, 17]), PLAN) < 1e-4


def test_the_probe_finds_a_model_that_does_not_follow_the_tree():
    """A decoder that counts positions by itself, as some architectures do."""
    policy = model(ARCHITECTURES["llama"])

    def count(_module, args, others):
        return args, others | {"position_ids": torch.arange(others["input_ids"].shape[1])[None]}

    policy.base_model.register_forward_pre_hook(count, with_kwargs=True)
    with pytest.raises(
        NumericalError, match="over a tree what it computes over single texts"
    ) as error:
        probe_tree(policy, tiny_documents([30, 17]), PLAN)
    assert f"more than {TOLERANCE:g}" in str(error.value)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_the_probe_allows_rounding_and_no_more(factor, monkeypatch):
    """Log-probs of the tree that are off by half of what is allowed, or by twice as much."""
    assert TOLERANCE < 0.01, "a position that is off by one comes to 0.1"
    policy, exact = model(ARCHITECTURES["llama"]), probe.tree_log_probs

    def off(*arguments):
        found = exact(*arguments)
        return found._replace(rollouts=found.rollouts - factor * TOLERANCE)

    monkeypatch.setattr(probe, "tree_log_probs", off)
    if factor > 1:
        with pytest.raises(NumericalError, match="over a tree what it computes over single texts"):
            probe_tree(policy, tiny_documents([30]), PLAN)
    else:
        gap = probe_tree(policy, tiny_documents([30]), PLAN)
        assert gap == pytest.approx(factor * TOLERANCE, rel=0.1)


def test_the_probe_finds_a_model_that_sees_the_document_before():
    """A decoder that takes a row for one text, as convolutions and recurrences do."""
    policy = model(ARCHITECTURES["llama"])

    def run_on(_module, args, others):
        if "tree_mask" not in others:
            return None
        tokens = others["input_ids"].clone()
        second = (others["position_ids"][0] == 0).nonzero()[1:, 0]
        tokens[0, second] = tokens[0, second - 1]
        return args, others | {"input_ids": tokens}

    policy.base_model.register_forward_pre_hook(run_on, with_kwargs=True)
    assert probe_tree(policy, tiny_documents([30]), PLAN) < 1e-4
    with pytest.raises(NumericalError, match="tokens in doc1 and doc0 are off"):
        probe_tree(policy, tiny_documents([30, 17]), PLAN)


def test_the_probe_takes_documents_with_a_single_context():
    documents = tiny_documents([9, 14], prompt_length=4)
    assert probe_tree(model(ARCHITECTURES["qwen2"]), documents, Completion(rollout_length=6)) < 1e-4
