"""Which layout `model.attention: auto` takes: the tree where it is exact, rows otherwise."""

import logging
import weakref

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    FalconConfig,
    LlamaConfig,
    Mamba2Config,
)

from ebft.errors import NumericalError, UserError
from ebft.models.attention import TREE, on_tree
from ebft.models.layout import Depth, load_exact
from ebft.models.options import ModelOptions
from ebft.models.probe import TOLERANCE, as_rollouts, largest_gap, probe_tree
from ebft.models.row_cache import Caching, caching
from ebft.plans.strided import Strided
from ebft.runs.setup import make_resources
from ebft.testing.tiny import tiny_tokenizer
from tests.models.shrink import tiny_config
from tests.models.sweep import build, sample
from tests.tiny import VOCAB, tiny_documents

DEPTH = Depth(document=40, rollout=6)
SIZES = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
    "num_attention_heads": 4, "initializer_range": 0.3, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 1,
}  # fmt: skip


def saved(folder, config):
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def load(folder, **options):
    depth = options.pop("depth", DEPTH)
    return make_resources(ModelOptions(path=folder, device="cpu", **options), seed=0, depth=depth)


def new_mamba2():
    """As small as weights are before training: log-probs are nearly those of a tree."""
    return Mamba2Config(**tiny_config("mamba2").to_dict() | {"initializer_range": 3e-4})


@pytest.mark.parametrize(
    ("config", "tree"),
    [
        (LlamaConfig(**SIZES), True),
        (tiny_config("mamba2"), False),
        (new_mamba2(), False),
        (FalconConfig(**SIZES), False),  # knows no attention but its own
        (tiny_config("qwen3_next"), False),
    ],
    ids=lambda it: getattr(it, "model_type", None),
)
def test_auto(config, tree, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        resources = load(saved(tmp_path, config))
    assert on_tree(resources.policy) is tree
    assert on_tree(resources.load_base()) is tree, "the frozen model has the policy's layout"
    lines = [record.getMessage() for record in caplog.records if "rows" in record.getMessage()]
    assert len(lines) == (0 if tree else 1)
    if not tree:
        who = type(resources.policy).__name__
        assert lines[0].startswith(f"model.attention = auto: {who} is computed on rows, because")


def test_layers_that_mix_branches_are_refused_however_small_their_effect():
    policy = AutoModelForCausalLM.from_config(new_mamba2(), attn_implementation=TREE).eval()
    documents, plan = tiny_documents([30, 17]), Strided(start=3, stride=7, rollout_length=4)
    assert largest_gap(policy, few_rollouts(documents, plan)) < TOLERANCE
    says = r"Mamba2ForCausalLM cannot be computed over a tree: .* set model.attention=rows"
    with pytest.raises(NumericalError, match=says):
        probe_tree(policy, documents, plan)


def few_rollouts(documents, plan):
    contexts = plan(documents)
    return as_rollouts(contexts, torch.stack([contexts.reference, contexts.reference.flip(-1)], 1))


def test_a_model_that_sees_later_tokens_is_refused(tmp_path):
    folder = saved(tmp_path, BertConfig(**SIZES))
    with pytest.raises(UserError, match=r"neither on the tree, because .*, nor on rows") as error:
        load(folder)
    assert str(error.value).startswith("model.path: BertLMHeadModel can be computed")


def test_a_model_without_a_backward_is_refused_before_it_is_trained(tmp_path):
    """Reformer differentiates in training mode alone, which has dropout."""
    with pytest.raises(UserError, match="nor on rows, because its own code raises AssertionError"):
        load(saved(tmp_path, tiny_config("reformer")))


def test_how_the_cache_of_a_model_may_be_used(tmp_path):
    """Attention continues; Mamba's kernels for several tokens begin anew."""
    assert caching(load(saved(tmp_path / "gpt", tiny_config("gpt_neo"))).policy) is (
        Caching.CONTINUED
    )
    assert caching(load(saved(tmp_path / "mamba", tiny_config("mamba"))).policy) is (
        Caching.PREFILLED
    )


def test_the_first_model_is_freed_before_it_is_loaded_again():
    """There is no memory for two."""
    models = []

    def load(attention):
        gone = [model() is None for model in models]
        assert all(gone)
        policy = build("xglm", TREE if attention == "auto" else None, torch.float32)
        models.append(weakref.ref(policy))
        return policy, tiny_tokenizer()

    assert load_exact(load, "auto", depth=DEPTH, sample=sample).attention == "rows"
    assert len(models) == 2
