"""Tokens of a tree that have the same prefix are computed once.

Rollouts of one context often begin alike, and like the document itself: the more certain the model,
the more of them. Hidden states depend on a token and what it sees, so those tokens have the same
ones. A merged tree has each of them once, and none of the padding after a rollout's end. Attention,
which needs whole branches, spreads them out again (`ebft.models.attention`); everything else, which
is nearly all of the work, is done for the distinct tokens alone. Results are the same up to
rounding (tests/property/test_merge.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from jaxtyping import Bool, Float, Int

from ebft.lazy import Tensor, torch
from ebft.rollout.records import Contexts, Rollouts
from ebft.rollout.tree import Tree, grow
from ebft.rollout.tree_mask import Merged

WORTH = 0.95
"""The most tokens that a merged tree has, as a share of the whole tree: spreading tokens out costs
about what the others save."""


class Distinct(NamedTuple):
    """Which rollout tokens are computed, and where the others find what is computed for them.

    `kept` is True for the first rollout token of each distinct prefix. `number` is the number of
    the kept token that has the same prefix, in the order of `kept`; 0 outside the mask.
    """

    kept: Bool[Tensor, "P n G"]
    number: Int[Tensor, "P n G"]

    def spread(self, values: Float[Tensor, " M"]) -> Float[Tensor, "P n G"]:
        """The values of the kept tokens, for all tokens with the same prefix."""
        return values[self.number]


def distinct(tokens: Int[Tensor, "P n G"], mask: Bool[Tensor, "P n G"]) -> Distinct:
    """Returns which tokens of `mask` have a prefix that no earlier rollout of the context has.

    In each rollout the tokens of the mask are consecutive.

    >>> tokens = torch.tensor([[[1, 2, 3], [1, 2, 4], [1, 5, 3]]])
    >>> distinct(tokens, torch.ones_like(tokens, dtype=torch.bool)).kept.int()
    tensor([[[1, 1, 1],
             [0, 0, 1],
             [0, 1, 1]]], dtype=torch.int32)
    """
    # Padding is no token: it may not stand for one.
    tokens = tokens.where(mask, -1)
    n, firsts = tokens.shape[1], []
    for j in range(n):
        same = (tokens[:, : j + 1] == tokens[:, j, None]).cumprod(-1)
        firsts.append(same.argmax(1))  # the first of them
    first = torch.stack(firsts, 1)  # [P, n, G]
    kept = mask & (first == torch.arange(n, device=tokens.device)[:, None])
    number = (kept.flatten().cumsum(0) - 1).view(kept.shape).gather(1, first)
    return Distinct(kept, number.where(mask, 0))


def alike(
    prefix: Int[Tensor, " Q"], tokens: Int[Tensor, " Q"], active: Bool[Tensor, " Q"]
) -> Merged:
    """Merges branches that are sampled, by the number of the prefix of each and its next token.

    `spread` has the new number of each branch's prefix. Branches that are not `active` have number
    0, and are not kept unless there is no other.

    >>> prefix, tokens = torch.tensor([0, 0, 0, 1]), torch.tensor([7, 5, 7, 7])
    >>> alike(prefix, tokens, torch.tensor([True, True, True, True]))
    Merged(spread=tensor([1, 0, 1, 2]), kept=tensor([1, 0, 3]))
    """
    at = active.nonzero()[:, 0] if active.any() else torch.zeros_like(tokens[:1])
    distinct, number = torch.unique(((prefix << 32) | tokens)[at], return_inverse=True)
    first = at.new_full(distinct.shape, len(at))
    first = first.scatter_reduce(0, number, torch.arange(len(at), device=at.device), "amin")
    spread = torch.zeros_like(prefix)
    spread[at] = number
    return Merged(spread, at[first])


def follows_document(rollouts: Rollouts, steps: int) -> Bool[Tensor, "P n steps"]:
    """Returns True for the rollout tokens up to which a rollout is what the document itself
    continues with."""
    c = rollouts.contexts
    at = _positions(c, steps)
    document = c.tokens[c.row[:, None], at.clamp(max=c.tokens.shape[1] - 1)]
    document = document.where(at < c.lengths[c.row, None], -1)
    same = rollouts.tokens[..., :steps] == document[:, None]
    return (same & rollouts.within[..., :steps]).cumprod(-1).bool()


def grow_merged(rollouts: Rollouts, *, steps: int) -> Tree:
    """Returns the tree of `grow`, merged if that leaves out enough tokens.

    The columns of a merged tree are those of its distinct tokens. Those after a rollout's end are
    0.
    """
    tree = grow(rollouts, steps=steps)
    mask = rollouts.within[..., :steps]
    own = mask & ~follows_document(rollouts, steps)
    found = distinct(rollouts.tokens[..., :steps], own)
    trunk = tree.mask.trunk
    kept = found.kept.flatten().nonzero()[:, 0] + trunk
    if trunk + len(kept) > WORTH * tree.mask.columns:
        return tree
    of_document = _columns_in_documents(rollouts.contexts, tree, steps)
    branches = (found.number + trunk).where(own, of_document[:, None]).where(mask, 0)
    trunks = torch.arange(trunk, device=mask.device)
    merged = Merged(torch.cat([trunks, branches.flatten()]), torch.cat([trunks, kept]))
    return replace(
        tree,
        tokens=tree.tokens[:, merged.kept],
        positions=tree.positions[:, merged.kept],
        mask=replace(tree.mask, merged=merged),
        rollout_at=branches,
        logit_index=torch.cat([tree.logit_index[..., :1], branches], -1),
    )


def _columns_in_documents(contexts: Contexts, tree: Tree, steps: int) -> Int[Tensor, "P steps"]:
    """The columns of the tokens that follow each context in its document."""
    at = _positions(contexts, steps).clamp(max=tree.trunk_at.shape[1] - 1)
    return tree.trunk_at[contexts.row[:, None], at]


def _positions(contexts: Contexts, steps: int) -> Int[Tensor, "P steps"]:
    """The positions after each anchor, which may be beyond the document's end."""
    return contexts.anchor[:, None] + torch.arange(steps, device=contexts.anchor.device)
