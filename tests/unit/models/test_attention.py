"""Attention over a tree is attention under the tree's dense mask, forward and backward."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForCausalLM, Qwen2Config

from ebft.models import attention
from ebft.models.attention import GROUPS, tree_attention
from ebft.models.forward import decode
from ebft.rollout.sees import Sees, sees_trunk
from tests.tiny import plain_policy

H, KV, D = 4, 2, 8


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("decoding", [False, True])
@pytest.mark.parametrize("branches", [0, 1, 3, GROUPS + 3])
@pytest.mark.parametrize("steps", [1, 4])
def test_it_equals_the_dense_mask(decoding, branches, steps):
    if decoding and not branches:
        pytest.skip("there is nothing to decode")
    torch.manual_seed(0)
    B, S = 2, 9
    # Branches that a row does not have are anchored at 0.
    anchors = torch.randint(0, S + 1, (B, branches)).sort(1).values
    sees = Sees(S, anchors, steps, decoding)
    queries = branches if decoding else S + branches * steps
    q = random(B, H, queries, D)
    k, v = random(B, KV, S + branches * steps, D), random(B, KV, S + branches * steps, D)
    ours, _ = tree_attention(None, q, k, v, None, sees=sees, scaling=0.3)
    dense = scaled_dot_product_attention(
        q, k, v, attn_mask=sees.mask(), scale=0.3, enable_gqa=True
    ).transpose(1, 2)
    torch.testing.assert_close(ours, dense)
    weight = torch.randn_like(dense)
    for a, b in zip(
        torch.autograd.grad((ours * weight).sum(), (q, k, v)),
        torch.autograd.grad((dense * weight).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


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
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention.NAME).eval()


def test_a_sliding_window_that_hides_something_is_refused():
    tokens, sees = torch.arange(10)[None], sees_trunk(1, 10, torch.device("cpu"))
    with pytest.raises(ValueError, match="sliding_window = 4, which attention over a tree does"):
        decode(windowed(4), tokens, torch.arange(10)[None], sees)
    wide = windowed(64)
    hidden = decode(wide, tokens, torch.arange(10)[None], sees)
    torch.testing.assert_close(wide.base_model(tokens).last_hidden_state, hidden)
