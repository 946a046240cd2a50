"""On a GPU: FlexAttention and the tree's own attention are attention under the dense mask."""

import pytest
import torch

from ebft.models.attention import DENSE, FLEX, TREE
from ebft.models.probe import probe_tree
from ebft.testing import tiny_documents
from tests.gpu.equality import (
    CONFIG,
    EXACT,
    PLAN,
    computed,
    distance,
    policy,
    rounding,
    sampled,
    sampling_gap,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]


@pytest.mark.parametrize("attention", [TREE, FLEX])
def test_log_probs_and_gradients_are_the_dense_mask_s(attention):
    rollouts = sampled(policy(DENSE, "cuda"))
    ours = computed(policy(attention, "cuda"), rollouts)
    assert distance(ours, computed(policy(DENSE, "cuda"), rollouts)) <= EXACT


@pytest.mark.parametrize("attention", [TREE, FLEX])
def test_bfloat16_is_as_near_to_float32_as_the_dense_mask_s(attention):
    assert rounding(attention, sampled(policy(DENSE, "cuda")), "cuda") <= 2


@pytest.mark.parametrize("attention", [TREE, FLEX])
def test_what_is_sampled_is_what_is_trained(attention):
    model = policy(attention, "cuda")
    documents = tiny_documents([60], vocabulary=CONFIG.vocab_size)
    assert probe_tree(model, documents, PLAN) < 1e-3
    assert sampling_gap(model, sampled(model)) <= 1e-3


def test_flex_is_compiled_once_for_trees_of_about_a_size():
    model = policy(FLEX, "cuda")
    computed(model, sampled(model))
    with torch.compiler.set_stance("fail_on_recompile"):
        computed(model, sampled(model))
