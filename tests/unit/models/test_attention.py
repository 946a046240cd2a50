"""Attention over a tree is attention under the tree's dense mask, forward and backward."""

import pytest
import torch

from ebft.models import attention
from ebft.models.attention import dense_attention, scoring, tree_attention
from ebft.models.branch_attention import Scoring
from ebft.rollout.tree_mask import ON_CPU, TreeMask, trunk_mask
from tests.tiny import plain_policy

H, KV, D = 4, 2, 8


class Grouped(torch.nn.Module):
    """What transformers' SDPA asks of a layer."""

    num_key_value_groups = H // KV


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("newest", [None, 0, 2])
@pytest.mark.parametrize("branches", [(0,), (1,), (3, 0, 2), (ON_CPU.queries + 3, 1)])
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


SCORINGS = {
    "window of 1": {"sliding_window": 1},
    "window": {"sliding_window": 3},
    "cap": {"softcap": 0.7},
    "sinks": {"s_aux": torch.tensor([0.3, -1.0, 2.0, 0.0], dtype=torch.float64)},
    "all": {
        "sliding_window": 4, "softcap": 0.5,
        "s_aux": torch.tensor([0.3, -1.0, 2.0, 0.0], dtype=torch.float64),
    },
}  # fmt: skip


def by_definition(q, k, v, tree_mask, scale, sliding_window=None, softcap=None, s_aux=None):
    """Of each query by itself, from its position and those of the keys that it sees."""
    parts = []
    for row, itself in enumerate(tree_mask.intervals.itself.tolist()):
        keys = tree_mask.dense[0, 0, row].nonzero()[:, 0]
        if sliding_window is not None:
            distance = tree_mask.positions[itself] - tree_mask.positions[keys]
            keys = keys[distance < sliding_window]
        group = H // KV
        scores = torch.einsum("hd,hkd->hk", q[0, :, row], k[0][:, keys].repeat_interleave(group, 0))
        scores = scores * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        weights = scores.exp()
        total = weights.sum(-1) + (0 if s_aux is None else s_aux.exp())
        values = v[0][:, keys].repeat_interleave(group, 0)
        parts.append(torch.einsum("hk,hkd->hd", weights / total[:, None], values))
    return torch.stack(parts)[None]


@pytest.mark.parametrize("attend", [tree_attention, dense_attention])
@pytest.mark.parametrize("newest", [None, 0, 2])
@pytest.mark.parametrize("branches", [(0,), (3, 0, 2), (ON_CPU.queries + 3, 1)])
@pytest.mark.parametrize("name", SCORINGS)
def test_windows_caps_and_sinks(attend, newest, branches, name, monkeypatch):
    """Values have another width than keys, as in multi-head latent attention."""
    if newest is not None and not sum(branches):
        pytest.skip("there is nothing to decode")
    monkeypatch.setattr(attention, "CHUNK", 4)
    torch.manual_seed(0)
    trunks = (9, 4, 6)[: len(branches)]
    anchors = torch.cat(
        [torch.randint(1, S + 1, (Q,)).sort().values for S, Q in zip(trunks, branches, strict=True)]
    )
    tree_mask = TreeMask(trunks, branches, anchors, 3, newest)
    queries = tree_mask.columns if newest is None else sum(branches)
    q, k, v = random(1, H, queries, D), random(1, KV, tree_mask.columns, D), None
    v = random(1, KV, tree_mask.columns, D - 3)
    options = dict(SCORINGS[name])
    leaves = [q, k, v]
    if "s_aux" in options:
        options["s_aux"] = options["s_aux"].clone().requires_grad_()
        leaves.append(options["s_aux"])
    ours, _ = attend(
        Grouped(), q, k, v, tree_mask.dense, tree_mask=tree_mask, scaling=0.3, **options
    )
    expected = by_definition(q, k, v, tree_mask, 0.3, **options)
    torch.testing.assert_close(ours, expected)
    weight = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad((ours * weight).sum(), leaves),
        torch.autograd.grad((expected * weight).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("newest", [0, 2])
@pytest.mark.parametrize("name", ["plain", *SCORINGS])
def test_trunks_that_are_padded_in_the_cache_give_the_same(name, newest):
    torch.manual_seed(0)
    anchors = torch.tensor([5, 9, 2, 7, 8, 8])
    row = TreeMask((9, 7, 8), (2, 2, 2), anchors, 3)
    padded = row.padded()
    assert (padded.width, padded.cached_columns) == (9, 27 + 18)
    q, k, v = random(1, H, 6, D), random(1, KV, row.columns, D), random(1, KV, row.columns, D - 3)
    cached = [x.new_zeros(1, KV, padded.cached_columns, x.shape[-1]) for x in (k, v)]
    for there, here in zip(cached, (k, v), strict=True):
        there[:, :, padded.cached_trunk_at] = here[:, :, : row.trunk]
        there[:, :, padded.cached_trunk :] = here[:, :, row.trunk :]
    options = SCORINGS.get(name, {})
    expected, _ = tree_attention(
        Grouped(), q, k, v, None, tree_mask=row.at(newest), scaling=0.3, **options
    )
    ours, _ = tree_attention(
        Grouped(), q, *cached, None, tree_mask=padded.at(newest), scaling=0.3, **options
    )
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(
    ("trunks", "branches"),
    [((9,), (2,)), ((9, 9), (2, 3)), ((9, 9), (0, 0)), ((90, 9), (2, 2)), ((9, 9), (33, 33))],
)
def test_trunks_that_are_left_as_they_are(trunks, branches):
    """A single one, other numbers of branches, none, other lengths, and branches in groups."""
    mask = TreeMask(trunks, branches, torch.full((sum(branches),), 4), 3)
    assert mask.padded() is mask


@pytest.mark.parametrize("name", SCORINGS)
def test_texts_without_a_tree_have_the_same_caps_and_sinks(name):
    """SDPA would ignore sinks silently. A window is in the mask of a text."""
    torch.manual_seed(0)
    options = {k: v for k, v in SCORINGS[name].items() if k != "sliding_window"}
    q, k, v = random(1, H, 9, D), random(1, KV, 9, D), random(1, KV, 9, D)
    tree_mask = trunk_mask([9], torch.device("cpu"))
    for mask in (None, tree_mask.dense):
        ours, _ = tree_attention(Grouped(), q, k, v, mask, scaling=0.3, is_causal=True, **options)
        torch.testing.assert_close(ours, by_definition(q, k, v, tree_mask, 0.3, **options))
    # The newest token after a cache.
    one, _ = tree_attention(Grouped(), q[:, :, -1:], k, v, None, scaling=0.3, **options)
    torch.testing.assert_close(one, by_definition(q, k, v, tree_mask, 0.3, **options)[:, -1:])


def test_a_window_as_large_as_the_tree_is_deep_changes_nothing():
    # A branch that leaves the trunk early is no deeper than the trunk.
    anchors = torch.tensor([2, 3])
    assert TreeMask((10,), (2,), anchors, steps=4).reach == 10
    assert TreeMask((10,), (2,), anchors, steps=8).reach == 11
    assert scoring(TreeMask((10,), (2,), anchors, steps=8), sliding_window=11) == Scoring()
    assert scoring(TreeMask((10,), (2,), anchors, steps=8), sliding_window=10) == Scoring(10)
