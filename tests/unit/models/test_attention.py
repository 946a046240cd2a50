"""Attention over a tree is attention under the tree's dense mask, forward and backward."""

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from ebft.models import attention
from ebft.models.attention import dense_attention, tree_attention
from ebft.models.forward import decode
from ebft.rollout.tree_mask import QUERIES, TreeMask, trunk_mask
from tests.tiny import plain_policy

H, KV, D = 4, 2, 8


class Grouped(torch.nn.Module):
    """What transformers' SDPA asks of a layer."""

    num_key_value_groups = H // KV


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("newest", [None, 0, 2])
@pytest.mark.parametrize("branches", [(0,), (1,), (3, 0, 2), (QUERIES + 3, 1)])
@pytest.mark.parametrize("steps", [0, 3, 4])
def test_it_equals_the_dense_mask(newest, branches, steps):
    if newest is not None and not (sum(branches) and steps > newest):
        pytest.skip("there is nothing to decode")
    torch.manual_seed(0)
    trunks = (9, 4, 6)[: len(branches)]
    anchors = torch.cat(
        [torch.randint(1, S + 1, (Q,)).sort().values for S, Q in zip(trunks, branches, strict=True)]
    )
    tree_mask = TreeMask(trunks, branches, anchors, steps, newest)
    queries = tree_mask.columns if newest is None else sum(branches)
    q = random(1, H, queries, D)
    # A cache may have room for more than the tree.
    k, v = random(1, KV, tree_mask.columns + 2, D), random(1, KV, tree_mask.columns + 2, D)
    ours, _ = tree_attention(torch.nn.Module(), q, k, v, None, tree_mask=tree_mask, scaling=0.3)
    dense, _ = dense_attention(
        Grouped(), q, k, v, tree_mask.dense, tree_mask=tree_mask, scaling=0.3
    )
    torch.testing.assert_close(ours, dense)
    weight = torch.randn_like(dense)
    for a, b in zip(
        torch.autograd.grad((ours * weight).sum(), (q, k, v)),
        torch.autograd.grad((dense * weight).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_under_autocast_it_is_as_near_as_the_dense_mask():
    """Keys that were rotated come in float32, values in bfloat16."""
    torch.manual_seed(0)
    tree_mask = TreeMask((9, 6), (3, 2), torch.tensor([2, 5, 9, 3, 6]), 4)
    q, k, v = (random(1, heads, tree_mask.columns, D) for heads in (H, KV, KV))
    weight = torch.randn(1, tree_mask.columns, H, D)

    def results(attend, layer, convert):
        leaves = [convert(x.detach()).requires_grad_() for x in (q, k, v)]
        leaves[2] = leaves[2].bfloat16() if leaves[2].dtype == torch.float32 else leaves[2]
        with torch.autocast("cpu", torch.bfloat16, enabled=leaves[0].dtype == torch.float32):
            out, _ = attend(layer, *leaves, tree_mask.dense, tree_mask=tree_mask, scaling=0.3)
        return [out, *torch.autograd.grad((out * weight).sum(), leaves[:2])]

    exact = results(tree_attention, torch.nn.Module(), torch.Tensor.double)
    ours = results(tree_attention, torch.nn.Module(), torch.Tensor.float)
    dense = results(dense_attention, Grouped(), torch.Tensor.float)
    for a, b, c in zip(ours, dense, exact, strict=True):
        assert (a - c).norm() < 2 * (b - c).norm() < 0.05 * c.norm()


def test_without_a_tree_it_is_the_model_s_own_attention():
    tokens = torch.arange(12).view(2, 6)
    policy = plain_policy()
    ours = policy(tokens).logits
    policy.set_attn_implementation("sdpa")
    torch.testing.assert_close(ours, policy(tokens).logits)


def windowed(window):
    config = Qwen2Config(
        vocab_size=24, hidden_size=32, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, use_sliding_window=True,
        sliding_window=window, max_window_layers=0, pad_token_id=0, bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention.TREE).eval()


def test_a_sliding_window_that_hides_something_is_refused():
    tokens, tree_mask = torch.arange(10)[None], trunk_mask([10], torch.device("cpu"))
    with pytest.raises(ValueError, match="sliding_window = 4, which attention over a tree does"):
        decode(windowed(4), tokens, torch.arange(10)[None], tree_mask)
    # A branch that leaves the trunk early is no deeper than the trunk.
    anchors = torch.tensor([2, 3])
    assert TreeMask((10,), (2,), anchors, steps=4).reach == 10
    assert TreeMask((10,), (2,), anchors, steps=8).reach == 11
    wide = windowed(64)
    hidden = decode(wide, tokens, torch.arange(10)[None], tree_mask)
    torch.testing.assert_close(wide.base_model(tokens).last_hidden_state, hidden)
