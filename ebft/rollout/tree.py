"""The tree: a document is the trunk, each rollout a branch that leaves it at its anchor.

A branch token sees the trunk before its anchor and its own branch up to itself; its position
continues from the anchor. So every branch gets exactly the hidden states that it would get as a
row of its own, at the cost of its own tokens alone (tests/property/test_tree.py holds that).

The trees of a micro-batch share one row (`ebft.rollout.tree_mask`), so that documents of different
lengths need no padding.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int

from ebft.lazy import Tensor, torch
from ebft.rollout.records import Contexts, Rollouts
from ebft.rollout.tree_mask import TreeMask


@dataclass(frozen=True, slots=True)
class Tree:
    """The geometry of the trees of B documents in a row of T tokens, as plain index tensors.

    The last five are columns of the row: `trunk_at` of each document token (padding repeats that of
    the last token), `reference_at` of each reference token in the trunk, `context_at` of each
    context's last token, `rollout_at` of each rollout token, and `logit_index` of the hidden state
    that predicts each rollout token and the one after the last. Branch j of context p is number
    p·n + j.
    """

    tokens: Int[Tensor, "1 T"]
    positions: Int[Tensor, "1 T"]
    mask: TreeMask
    trunk_at: Int[Tensor, "B S"]
    reference_at: Int[Tensor, "P G"]
    context_at: Int[Tensor, " P"]
    rollout_at: Int[Tensor, "P n steps"]
    logit_index: Int[Tensor, "P n steps+1"]

    def of_rollouts(self, values: Float[Tensor, "T d"], length: int) -> Float[Tensor, "P n G d"]:
        """The values at rollout tokens, padded with zeros from the branches' end to `length`."""
        return torch.nn.functional.pad(
            values[self.rollout_at], (0, 0, 0, length - self.rollout_at.shape[-1])
        )


def plant(contexts: Contexts, *, n: int, steps: int) -> Tree:
    """Returns the trees of all documents, with n branches of `steps` tokens for each context. All
    branch tokens are 0."""
    (B, S), P = contexts.tokens.shape, len(contexts)
    device = contexts.tokens.device
    lengths, row, anchor = contexts.lengths, contexts.row, contexts.anchor

    starts = lengths.cumsum(0) - lengths
    trunk_at = starts[:, None] + torch.arange(S, device=device).minimum(lengths[:, None] - 1)
    begins = torch.searchsorted(row, torch.arange(B + 1, device=device))
    # Together: the host waits for the device once.
    on_host = torch.cat([lengths, begins.diff() * n, anchor]).tolist()
    anchors = [a for a in on_host[2 * B :] for _ in range(n)]
    tree_mask = TreeMask(
        tuple(on_host[:B]), tuple(on_host[B : 2 * B]), anchor.repeat_interleave(n), steps,
        known=tuple(anchors),
    )  # fmt: skip

    branch = torch.arange(P * n, device=device).view(P, n, 1)
    step = torch.arange(steps, device=device)
    rollout_at = tree_mask.trunk + branch * steps + step
    context_at = starts[row] + anchor - 1
    # The last token of the context predicts the first token of a branch.
    trunk_end = context_at[:, None, None].expand(P, n, 1)
    logit_index = torch.cat([trunk_end, rollout_at], -1)
    ahead = torch.arange(contexts.rollout_length, device=device)
    reference_at = trunk_at.gather(0, row[:, None].expand(-1, S))  # [P, S]
    reference_at = reference_at.gather(1, (anchor[:, None] + ahead).clamp(max=S - 1))

    tokens = torch.zeros(1, tree_mask.trunk + P * n * steps, dtype=torch.long, device=device)
    positions = torch.zeros_like(tokens)
    tokens[0, trunk_at] = contexts.tokens.gather(1, trunk_at - starts[:, None])
    positions[0, trunk_at] = trunk_at - starts[:, None]
    positions[0, rollout_at] = (anchor[:, None, None] + step).expand_as(rollout_at)
    return Tree(
        tokens, positions, tree_mask, trunk_at, reference_at, context_at, rollout_at, logit_index
    )  # fmt: skip


def grow(rollouts: Rollouts, *, steps: int) -> Tree:
    """Returns the trees of all documents of `rollouts`, with the first `steps` tokens of each."""
    tree = plant(rollouts.contexts, n=rollouts.tokens.shape[1], steps=steps)
    tree.tokens[0, tree.rollout_at] = rollouts.tokens[..., :steps]
    return tree
