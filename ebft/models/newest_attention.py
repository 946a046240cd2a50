"""Attention of the newest token of each branch, while branches are sampled: forward only."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ebft.models.branch_attention import Scoring, capped_scores, exact, probabilities
from ebft.rollout.tree_mask import TreeMask


def newest_attention(
    q: Float[Tensor, "H Q R d"],
    K: Float[Tensor, "H K d"],
    V: Float[Tensor, "H K v"],
    sinks: Float[Tensor, "H 1 R 1"] | None,
    tree_mask: TreeMask,
    options: Scoring,
) -> Float[Tensor, "H Q R v"]:
    """`BranchAttention` for queries that are token `tree_mask.newest` of each branch, scaled and
    folded; keys and values are those of the whole row.

    Each product is one call for all heads, and reads the trunks where they are in the row: a step
    has few rows, and many small operations would take longer than the products.
    """
    H, Q, R, _ = q.shape
    k, v = (_own(x, tree_mask, options.window) for x in (K, V))
    own = capped_scores(exact(torch.bmm(q.flatten(0, 1), k.mT)), options.cap).view(H, Q, R, -1)
    attend = _by_group if tree_mask.width is None else _together
    out, of_own = attend(q, K, V, own, sinks, tree_mask, options)
    return out.view(H * Q, R, -1).baddbmm_(of_own.flatten(0, 1), v).view(H, Q, R, -1)


def _by_group(
    q: Float[Tensor, "H Q R d"],
    K: Float[Tensor, "H K d"],
    V: Float[Tensor, "H K v"],
    own: Float[Tensor, "H Q R g"],
    sinks: Float[Tensor, "H 1 R 1"] | None,
    tree_mask: TreeMask,
    options: Scoring,
) -> tuple[Float[Tensor, "H N v"], Float[Tensor, "H Q R g"]]:
    """Returns what is attended to in the trunks, and the probabilities of each branch's own
    tokens."""
    trunks, branches = [], []
    for group in tree_mask.groups_within(options.window):
        part, keys = group.branches, group.keys
        p, _ = probabilities(q[:, part], K[:, keys], own[:, part], sinks, group, options)
        of_trunk, of_own, _ = group.parts(p.to(V.dtype), own.shape[3])
        trunks.append(torch.bmm(of_trunk.flatten(1, 2), V[:, keys]))
        branches.append(of_own)
    return torch.cat(trunks, 1), torch.cat(branches, 1)


def _together(
    q: Float[Tensor, "H Q R d"],
    K: Float[Tensor, "H K d"],
    V: Float[Tensor, "H K v"],
    own: Float[Tensor, "H Q R g"],
    sinks: Float[Tensor, "H 1 R 1"] | None,
    tree_mask: TreeMask,
    options: Scoring,
) -> tuple[Float[Tensor, "H N v"], Float[Tensor, "H Q R g"]]:
    """The same for trunks that are padded to one length."""
    H, Q, R, _ = q.shape
    B, width = len(tree_mask.trunks), tree_mask.width
    assert width is not None
    K, V = (torch.unflatten(x[:, : B * width], 1, (B, width)) for x in (K, V))
    scores = capped_scores(exact(q.reshape(H, B, -1, q.shape[-1]) @ K.mT), options.cap)
    scores = scores.view(H, B, Q // B, R, width)
    scores = scores.masked_fill(
        tree_mask.hidden_within(options.window)[:, :, None], float("-inf")
    ).view(H, Q, R, width)
    columns = [scores, own] if sinks is None else [scores, own, sinks.expand(-1, Q, -1, -1)]
    p = torch.cat(columns, -1).softmax(-1).to(V.dtype)
    of_trunk, of_own = p[..., :width], p[..., width : width + own.shape[3]]
    out = of_trunk.reshape(H, B, -1, width) @ V
    return out.flatten(1, 2), of_own


def _own(
    x: Float[Tensor, "H K d"], tree_mask: TreeMask, window: int | None
) -> Float[Tensor, "N g d"]:
    """What the newest token of each branch sees of its own branch: N = H·Q."""
    assert tree_mask.newest is not None
    until = tree_mask.newest + 1
    first = 0 if window is None else max(0, until - window)
    own = x[:, tree_mask.cached_trunk : tree_mask.cached_columns]
    own = torch.unflatten(own, 1, (-1, tree_mask.steps))
    return own[:, :, first:until].flatten(0, 1)
