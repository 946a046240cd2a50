"""FlexAttention over a row of trees: fused kernels for GPUs, from the tree's intervals.

The mask consists of index tensors, and lengths are padded to a few sizes, so a compiled kernel is
reused for all trees of about the same size. On a CPU, FlexAttention has no backward: it can be used
there for sampling, features and evaluation, to compare with `tree`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import pad
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from ebft.errors import UserError
from ebft.models.attention import FLEX, in_autocast, of_merged, scoring, without_tree
from ebft.models.branch_attention import Scoring
from ebft.rollout.tree_mask import Intervals, TreeMask

RECOMPILE_LIMIT = 512
"""Most kernels of a process: there are four kinds of pass, each with some tens of sizes."""
BLOCK = 128
"""Tokens of a block: FlexAttention skips a block of keys that no query of a block sees."""

NO_BACKWARD = (
    "model.attention = flex: FlexAttention cannot train on a CPU, because it has no backward "
    "there; set model.attention=tree, or model.device=cuda"
)


UNSUPPORTED = (
    "{} has a sliding window, capped scores or sinks, which FlexAttention's kernels do not compute "
    "over a tree so far; set model.attention=tree"
)


def flex_tree_attention(
    module: torch.nn.Module,
    query: Float[Tensor, "1 H T d"],
    key: Float[Tensor, "1 H_kv K d"],
    value: Float[Tensor, "1 H_kv K d"],
    attention_mask: Tensor | None,
    *,
    tree_mask: TreeMask | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[Float[Tensor, "1 T H d"], None]:
    """transformers' attention interface; without `tree_mask` it is `without_tree`.

    Raises `ValueError` for training on a CPU, and `UserError` for sliding windows, capped scores
    and sinks.
    """
    if tree_mask is None:
        return without_tree(module, query, key, value, attention_mask, scaling, dropout, **others)
    if scoring(tree_mask, **others) != Scoring():
        raise UserError(UNSUPPORTED.format(type(module).__name__))
    if query.device.type == "cpu":
        if torch.is_grad_enabled() and query.requires_grad:
            raise ValueError(NO_BACKWARD)
        # It rejects inputs that require gradients even in no-grad mode.
        query, key, value = query.detach(), key.detach(), value.detach()
    T = query.shape[2]
    key, value = key[:, :, : tree_mask.columns], value[:, :, : tree_mask.columns]
    out = kernel(query.device.type)(
        *(_padded(in_autocast(x)) for x in (query, key, value)),
        block_mask=block_mask(tree_mask),
        scale=scaling,
        enable_gqa=True,
    )
    return out[:, :, :T].transpose(1, 2), None


@cache
def kernel(device: str) -> Callable[..., Tensor]:
    """Returns FlexAttention, compiled for a GPU, or uncompiled for a CPU."""
    if device == "cpu":
        return cast("Callable[..., Tensor]", flex_attention)
    # Compiled for each size and kind of pass. Beyond the limit torch would fall back to eager mode,
    # with all scores in memory; `fullgraph` makes that an error.
    compiled = torch.compile(  # type: ignore[call-overload]  # the limit is in no overload
        flex_attention, dynamic=False, fullgraph=True, recompile_limit=RECOMPILE_LIMIT
    )
    return cast("Callable[..., Tensor]", compiled)


def bucket(length: int) -> int:
    """Returns the length to pad to: one of eight between two powers of two, all whole blocks."""
    step = max(BLOCK, 1 << max(0, (length - 1).bit_length() - 4))
    return -(-length // step) * step


def block_mask(tree_mask: TreeMask) -> BlockMask:
    """Returns the `BlockMask` of a tree; cached."""
    if tree_mask not in _made:
        _made[tree_mask] = _block_mask(tree_mask)
    return _made[tree_mask]


_made: WeakKeyDictionary[TreeMask, BlockMask] = WeakKeyDictionary()


def _block_mask(tree_mask: TreeMask) -> BlockMask:
    columns = bucket(tree_mask.columns)
    first, until, own, itself = intervals = _padded_intervals(tree_mask.intervals)

    def mask_mod(_b: Tensor, _h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        above = (first[q] <= k) & (k < until[q])
        return above | ((own[q] <= k) & (k <= itself[q]))

    some, every = blocks(intervals, columns)
    partial, full = some & ~every, every
    return BlockMask.from_kv_blocks(
        *_ordered(partial), *_ordered(full),
        BLOCK_SIZE=BLOCK, mask_mod=mask_mod, seq_lengths=(len(first), columns),
    )  # fmt: skip


def blocks(
    intervals: Intervals, columns: int
) -> tuple[Bool[Tensor, "Q_blocks K_blocks"], Bool[Tensor, "Q_blocks K_blocks"]]:
    """Returns two masks: blocks of keys that a block of queries may see, and that it sees whole."""
    first, until, own, itself = (x.view(-1, BLOCK) for x in intervals)
    start = torch.arange(0, columns, BLOCK, device=first.device)
    some = torch.zeros(len(first), len(start), dtype=torch.bool, device=first.device)
    every = some.clone()
    for low, high in ((first, until), (own, itself + 1)):
        empty = low >= high
        lowest = low.masked_fill(empty, columns).amin(1, keepdim=True)
        highest = high.masked_fill(empty, 0).amax(1, keepdim=True)
        some |= (start < highest) & (start + BLOCK > lowest)
        every |= (low.amax(1, keepdim=True) <= start) & (
            start + BLOCK <= high.amin(1, keepdim=True)
        )
    return some, every


def _ordered(wanted: Bool[Tensor, "Q K"]) -> tuple[Int[Tensor, "1 1 Q"], Int[Tensor, "1 1 Q K"]]:
    """Returns the number of blocks of keys that each block of queries needs, and the indices of
    all blocks, those needed first."""
    order = wanted.int().argsort(dim=1, descending=True, stable=True)
    return wanted.sum(1).int()[None, None], order.int()[None, None]


def _padded(x: Float[Tensor, "1 H N d"]) -> Float[Tensor, "1 H M d"]:
    return pad(x, (0, 0, 0, bucket(x.shape[2]) - x.shape[2]))


def _padded_intervals(intervals: Intervals) -> Intervals:
    # Padding sees the first key, because a softmax over no keys is NaN.
    length = len(intervals.first)
    more = (0, bucket(length) - length)
    return Intervals(*(pad(x, more, value=v) for x, v in zip(intervals, (0, 1, 1, 0), strict=True)))


AttentionInterface.register(FLEX, of_merged(flex_tree_attention))
AttentionMaskInterface.register(FLEX, sdpa_mask)
