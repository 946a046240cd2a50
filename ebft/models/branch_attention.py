"""Attention of branches, in groups, to what they see of their trunk and to themselves: the forward
and the backward that no library has."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ebft.rollout.tree_mask import Group, TreeMask


class Scoring(NamedTuple):
    """What an architecture does to attention scores: a sliding window in tokens, a cap
    (`cap · tanh(score/cap)`), and for each head the score of a sink, which takes attention and has
    no value. None: without it."""

    window: int | None = None
    cap: float | None = None
    sinks: Float[Tensor, " H"] | None = None

    @property
    def plain(self) -> bool:
        """Whether scores are compared as they are."""
        return self.cap is None and self.sinks is None


class BranchAttention(torch.autograd.Function):
    """softmax([q·K_trunk below the anchor, q·K_own up to itself, sink]) · [V_trunk, V_own, 0].

    Shapes: q [H_kv, Q, R, d], scaled and folded, trunk K, V [H_kv, S, d], own K, V [H_kv, Q, G, d],
    sinks [H_kv, 1, R, 1]. Queries are all tokens of a branch.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        K: Tensor,
        V: Tensor,
        k: Tensor,
        v: Tensor,
        sinks: Tensor | None,
        tree_mask: TreeMask,
        options: Scoring,
    ) -> Tensor:
        own, _ = _own_scores(q, k, options)
        out = q.new_empty(*q.shape[:3], v.shape[-1])
        for group in tree_mask.groups_within(options.window):
            part = group.branches
            p, _ = probabilities(q[:, part], K[:, group.keys], own[:, part], sinks, group, options)
            trunk, own[:, part], _ = group.parts(p.to(V.dtype), k.shape[2])
            out[:, part] = _each(_flat(trunk) @ V[:, group.keys], part)
        ctx.save_for_backward(q, K, V, k, v, sinks, out.add_(own.to(v.dtype) @ v))
        ctx.tree_mask, ctx.options = tree_mask, options
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, K, V, k, v, sinks, out = ctx.saved_tensors
        tree_mask, options = ctx.tree_mask, ctx.options
        wide = torch.promote_types(K.dtype, torch.float32)  # sums over many branches
        dK, dV = torch.zeros_like(K, dtype=wide), torch.zeros_like(V, dtype=wide)
        d_sinks = None if sinks is None else torch.zeros_like(sinks)
        # The softmax's derivative is p·(dp − mean dp), with dp = grad·valueᵀ and its mean grad·out.
        # A sink has no value, so its dp is 0.
        mean = (grad * out).sum(-1, keepdim=True, dtype=wide)
        p_own, slope_own = _own_scores(q, k, options)
        dq, dp_own = torch.empty_like(q), grad @ v.mT
        for group in tree_mask.groups_within(options.window):
            part, keys = group.branches, group.keys
            queries, d_out = _flat(q[:, part]), _flat(grad[:, part])
            p, slope = probabilities(q[:, part], K[:, keys], p_own[:, part], sinks, group, options)
            trunk, p_own[:, part], p_sink = group.parts(p, k.shape[2])
            dV[:, keys] += _flat(trunk).to(V.dtype).mT @ d_out
            ds = _each(d_out @ V[:, keys].mT, part).sub(mean[:, part]).mul_(trunk)
            ds = (ds if slope is None else ds.mul_(slope)).to(q.dtype)
            dK[:, keys] += _flat(ds).mT @ queries
            dq[:, part] = _each(_flat(ds) @ K[:, keys], part)
            if d_sinks is not None:
                d_sinks -= (p_sink * mean[:, part]).sum(1, keepdim=True)
        dv = p_own.to(v.dtype).mT @ grad
        ds_own = p_own * (dp_own - mean)
        ds_own = (ds_own if slope_own is None else ds_own.mul_(slope_own)).to(q.dtype)
        dq = dq.add_(ds_own @ k)
        return dq, dK.to(K.dtype), dV.to(V.dtype), ds_own.mT @ q, dv, d_sinks, None, None


def _own_scores(
    q: Float[Tensor, "H Q R d"], k: Float[Tensor, "H Q G d"], options: Scoring
) -> tuple[Float[Tensor, "H Q R G"], Float[Tensor, "H Q R G"] | None]:
    """Scores of queries against their own branch, −∞ for tokens that they do not see, float32 at
    least; and their derivative by the scores before the cap."""
    s = capped_scores(exact(q @ k.mT), options.cap)
    slope = _slope(s, options.cap)
    key = torch.arange(k.shape[2], device=q.device)
    at = key[:, None]
    hidden = key > at
    if options.window is not None:
        hidden = hidden | (key <= at - options.window)
    torch.unflatten(s, 2, (-1, len(at))).masked_fill_(hidden, float("-inf"))
    return s, slope


def probabilities(
    q: Float[Tensor, "H Q R d"],
    K: Float[Tensor, "H K d"],
    own: Float[Tensor, "H Q R G"],
    sinks: Float[Tensor, "H 1 R 1"] | None,
    group: Group,
    options: Scoring,
) -> tuple[Float[Tensor, "H Q R P"], Float[Tensor, "H Q R K"] | None]:
    """A group's attention probabilities: over its trunk's keys, each branch's own, and the sink if
    there is one (P = K + G, or one more); and the derivative of the trunk's scores by those before
    the cap."""
    trunk = capped_scores(exact(_each(_flat(q) @ K.mT, group.branches)), options.cap)
    slope = _slope(trunk, options.cap)
    mask = group.mask
    some = torch.unflatten(trunk[..., group.shared :], 2, (-1, mask.shape[1]))
    some.add_(mask[:, None])
    columns = [trunk, own]
    if sinks is not None:
        columns.append(sinks.expand(-1, own.shape[1], -1, -1))
    return torch.cat(columns, -1).softmax(-1), slope


def capped_scores(scores: Tensor, cap: float | None) -> Tensor:
    """Returns `cap · tanh(scores/cap)`; the scores themselves without a cap."""
    return scores if cap is None else (scores / cap).tanh() * cap


def _slope(capped: Tensor, cap: float | None) -> Tensor | None:
    return None if cap is None else 1 - (capped / cap) ** 2


def exact(scores: Tensor) -> Tensor:
    """Returns the scores in float32 at least, for the softmax."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def _flat(x: Float[Tensor, "H Q R d"]) -> Float[Tensor, "H N d"]:
    return x.flatten(1, 2)


def _each(x: Float[Tensor, "H N d"], branches: slice) -> Float[Tensor, "H Q R d"]:
    return torch.unflatten(x, 1, (branches.stop - branches.start, -1))
