"""Rows instead of a tree: each branch with its prefix as a text of its own.

This is what a tree stands for, and what a model is given that cannot compute over a tree: its rows
are ordinary texts, padded on the right. Their hidden states are put back into the tree's columns,
so that everything else is the same for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float, Int

from ebft.lazy import Tensor, torch
from ebft.rollout.transfer import numbers
from ebft.rollout.tree_mask import TreeMask


@dataclass(frozen=True, slots=True)
class Rows:
    """R texts of a row of trees, padded to L tokens.

    `column` has each token's column in the row of trees; `there` is False for padding. `own` is
    True where the tree takes a token's hidden state from: in a document, all tokens; in a branch
    with its prefix, only the branch.
    """

    column: Int[Tensor, "R L"]
    there: Bool[Tensor, "R L"]
    own: Bool[Tensor, "R L"]


def as_rows(tree_mask: TreeMask) -> list[Rows]:
    """Returns all documents and branches of a row of trees as texts, in batches.

    A batch has about as many tokens as the tree, or one text, so that it needs about as much
    memory. Texts of about equal length are in one batch.
    """
    device = tree_mask.anchors.device
    trunks = numbers(tree_mask.trunks, device)
    starts, first, prefix, own = trunks.cumsum(0) - trunks, trunks * 0, trunks * 0, trunks
    if tree_mask.steps:
        branch = torch.arange(tree_mask.anchors.numel(), device=device)
        starts = torch.cat([starts, tree_mask.starts])
        first = torch.cat(
            [first + starts[: len(trunks)], tree_mask.trunk + branch * tree_mask.steps]
        )
        prefix = torch.cat([prefix, tree_mask.anchors])
        own = torch.cat([own, torch.full_like(branch, tree_mask.steps)])
    else:
        first = starts
    order = (prefix + own).argsort(stable=True)
    lengths = (prefix + own)[order].tolist()
    rows, at = [], 0
    for count in pack_padded(lengths, budget=tree_mask.columns):
        part = order[at : at + count]
        at += count
        place = torch.arange(lengths[at - 1], device=device)
        before = prefix[part, None]
        column = torch.where(
            place < before, starts[part, None] + place, first[part, None] + place - before
        )
        there = place < before + own[part, None]
        rows.append(Rows(column.where(there, 0), there, there & (place >= before)))
    return rows


def nothing_of_its_own(device: torch.device) -> Rows:
    """Returns a batch of one token of which nothing is taken."""
    column = torch.zeros(1, 1, dtype=torch.long, device=device)
    return Rows(column, column == 0, column != 0)


def pack_padded(lengths: Sequence[int], budget: int) -> list[int]:
    """Groups ascending lengths so that each group, padded to its longest, has at most `budget`
    tokens; returns how many lengths each group has. A longer one is a group by itself.

    >>> pack_padded([2, 3, 3, 9], budget=8)
    [2, 1, 1]
    """
    counts: list[int] = []
    for length in lengths:
        if counts and (counts[-1] + 1) * length <= budget:
            counts[-1] += 1
        else:
            counts.append(1)
    return counts


def to_columns(parts: Sequence[Float[Tensor, "_ d"]], rows: Sequence[Rows]) -> Float[Tensor, "T d"]:
    """Returns the values of all tokens in the order of the row of trees, from those of each batch's
    `own` tokens; differentiable."""
    column = torch.cat([batch.column[batch.own] for batch in rows])
    return torch.cat(list(parts))[column.argsort()]
