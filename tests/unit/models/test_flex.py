"""FlexAttention over a tree is attention under the tree's dense mask."""

import pytest
import torch

from ebft.models import flex
from ebft.models.attention import dense_attention
from ebft.models.flex import BLOCK, blocks, bucket, flex_tree_attention
from ebft.rollout.tree_mask import TreeMask, trunk_mask
from tests.unit.models.test_attention import KV, D, Grouped, H

CASES = [
    TreeMask((9,), (3,), torch.tensor([2, 5, 9]), 4),
    TreeMask((200, 40), (30, 5), torch.cat([torch.arange(30) * 6 + 3, torch.arange(5) * 8 + 4]), 8),
    TreeMask((200, 40), (30, 0), torch.arange(30) * 6 + 3, 8, newest=2),
    trunk_mask([300, 20], torch.device("cpu")),
]


@pytest.mark.parametrize("tree_mask", CASES)
def test_it_equals_the_dense_mask(tree_mask):
    torch.manual_seed(0)
    queries = len(tree_mask.intervals.first)
    q = torch.randn(1, H, queries, D)
    k, v = torch.randn(2, 1, KV, tree_mask.columns + 3, D)
    ours, _ = flex_tree_attention(
        torch.nn.Module(), q, k, v, None, tree_mask=tree_mask, scaling=0.3
    )
    dense, _ = dense_attention(
        Grouped(), q, k, v, tree_mask.dense, tree_mask=tree_mask, scaling=0.3
    )
    torch.testing.assert_close(ours, dense, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tree_mask", CASES)
def test_blocks_miss_nothing_and_full_ones_hide_nothing(tree_mask):
    """What a block mask leaves out is never seen; what it calls full is seen by all of a block."""
    columns = bucket(tree_mask.columns)
    intervals = flex._padded_intervals(tree_mask.intervals)
    first, until, own, itself = (x[:, None] for x in intervals)
    key = torch.arange(columns)
    mask = ((first <= key) & (key < until)) | ((own <= key) & (key <= itself))
    tiles = mask.view(len(mask) // BLOCK, BLOCK, columns // BLOCK, BLOCK)
    some, every = blocks(intervals, columns)
    assert not (tiles.any(1).any(-1) & ~some).any()
    assert torch.equal(tiles.all(1).all(-1), every)


def test_lengths_are_padded_to_few_sizes():
    sizes = {bucket(length) for length in range(1, 8 * 1024 + 1)}
    assert len(sizes) <= 8 + 8 * 3
    for length in (1, BLOCK, BLOCK + 1, 1025, 5000, 81_408):
        assert length <= bucket(length) <= max(1.125 * length, length + BLOCK)
        assert bucket(length) % BLOCK == 0


def test_training_on_a_cpu_is_refused():
    q = torch.zeros(1, H, 13, D, requires_grad=True)
    k = torch.zeros(1, KV, 13, D)
    tree_mask = TreeMask((9,), (1,), torch.tensor([4]), 4)
    with pytest.raises(ValueError, match=r"model.attention = flex: .* cannot train on a CPU"):
        flex_tree_attention(torch.nn.Module(), q, k, k, None, tree_mask=tree_mask)


def test_compiled_once_it_serves_every_tree_of_its_size_and_every_token_that_is_sampled():
    """What makes torch compile again does not depend on what it compiles to."""
    compiled = torch.compile(flex.flex_attention, dynamic=False, fullgraph=True, backend="eager")

    def attend(tree_mask):
        q, k = torch.randn(1, H, len(tree_mask.intervals.first), 16), torch.randn(1, KV, 200, 16)
        return compiled(
            *map(flex._padded, (q, k[:, :, : tree_mask.columns], k[:, :, : tree_mask.columns])),
            block_mask=flex.block_mask(tree_mask), enable_gqa=True,
        )  # fmt: skip

    one = TreeMask((100,), (10,), torch.arange(10) * 9 + 3, 8)
    other = TreeMask((60, 50), (6, 5), torch.arange(11) * 4 + 3, 6)
    attend(one)
    with torch.compiler.set_stance("fail_on_recompile"):
        attend(other)
    attend(one.at(0))
    with torch.compiler.set_stance("fail_on_recompile"):
        for tree_mask in (one.at(1), one.at(7), other.at(2)):
            attend(tree_mask)
