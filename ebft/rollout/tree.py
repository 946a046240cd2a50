"""The tree: a document is the trunk, each rollout a branch that leaves it at its anchor.

One row holds one document's whole tree, trunk first, then the branches one after another:

    | trunk: S tokens | branch 0: G tokens | branch 1: G tokens | …

A branch token sees the trunk before its anchor and its own branch up to itself; its position
continues from the anchor. So every branch gets exactly the hidden states that it would get as a
row of its own, at the cost of its G tokens alone (tests/property/test_tree.py holds that).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from ebft.rollout.records import Rollouts
from ebft.rollout.sees import Sees


@dataclass(frozen=True, slots=True)
class Tree:
    """The geometry of B trees, padded to T columns, as plain index tensors.

    `rollout_at`, `logit_index` and `reference_at` are columns: of each rollout token, of the
    hidden state that predicts it, and of each reference token in the trunk.
    """

    tokens: Int[Tensor, "B T"]
    positions: Int[Tensor, "B T"]
    sees: Sees
    rollout_at: Int[Tensor, "P n G"]
    logit_index: Int[Tensor, "P n G"]
    reference_at: Int[Tensor, "P G"]


def grow(rollouts: Rollouts) -> Tree:
    """The tree of every document of `rollouts` with all its branches."""
    contexts = rollouts.contexts
    (B, S), (_, n, G) = contexts.tokens.shape, rollouts.tokens.shape
    device = contexts.tokens.device
    row, anchor = contexts.row, contexts.anchor

    rank = rank_in_document(row)
    Q = int(rank.max() + 1) * n
    T = S + Q * G
    branch = rank[:, None] * n + torch.arange(n, device=device)  # [P, n]
    first = S + branch * G
    step = torch.arange(G, device=device)
    rollout_at = first[..., None] + step  # [P, n, G]
    # The first token of a branch is predicted where the trunk ends for it, at its anchor − 1.
    before = torch.where(step == 0, (anchor - 1)[:, None, None], rollout_at - 1)

    column = torch.arange(T, device=device).expand(B, T)
    in_trunk = column < S
    tokens = torch.zeros(B, T, dtype=contexts.tokens.dtype, device=device)
    tokens[:, :S] = contexts.tokens
    positions = torch.where(in_trunk, column, 0)
    at = (row[:, None, None].expand_as(rollout_at), rollout_at)
    tokens[at] = rollouts.tokens
    positions[at] = anchor[:, None, None] + step
    anchors = torch.zeros(B, Q, dtype=anchor.dtype, device=device)
    anchors[row[:, None].expand_as(branch), branch] = anchor[:, None].expand_as(branch)

    reference_at = (anchor[:, None] + step).clamp(max=S - 1)
    sees = Sees(S, anchors, steps=G)
    return Tree(tokens, positions, sees, rollout_at, before, reference_at)


def rank_in_document(row: Int[Tensor, " P"]) -> Int[Tensor, " P"]:
    """The place of each context among those of its own document, from 0; `row` ascends."""
    return torch.arange(row.numel(), device=row.device) - torch.searchsorted(row, row)
