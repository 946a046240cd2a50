"""Attention over a row of trees at the cost of what its tokens see, for any Hugging Face decoder.

A dense mask over all T tokens costs T², but a branch token sees only its prefix and its own few
tokens. Here each trunk attends to itself causally. Branches attend, in groups of similar anchors,
to the part of their trunk that the group needs, and to themselves. Backward computes the
probabilities again, so no [queries, keys] matrix is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ebft.models.decoder import text_config
from ebft.rollout.tree_mask import Group, TreeMask

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TREE = "ebft_tree"
FLEX = "ebft_flex"
"""`ebft.models.flex`, registered there."""
DENSE = "ebft_dense"
"""The reference implementation: transformers' SDPA with the tree's dense mask."""
CHUNK = 128
"""Queries of a document that attend together if SDPA does not know their scores or their window."""


def on_tree(model: PreTrainedModel) -> bool:
    """Returns whether the model was loaded with an attention that supports trees.

    Any other attention, and a recurrence, computes rows.
    """
    return text_config(model)._attn_implementation in (TREE, FLEX, DENSE)


def needs_mask(model: PreTrainedModel) -> bool:
    """Returns whether the model's attention needs the dense mask, and not a `TreeMask`."""
    return bool(text_config(model)._attn_implementation == DENSE)


def put_on_rows(model: PreTrainedModel) -> bool:
    """Gives a model that was loaded with an attention for trees its own; returns whether that
    worked. Older architectures can only be loaded again."""
    for name in ("sdpa", "eager"):
        with suppress(ValueError):  # of architectures without the first
            model.set_attn_implementation(name)
            break
    return not on_tree(model)


@contextmanager
def own_attention(model: PreTrainedModel) -> Iterator[None]:
    """Context manager in which a model has its own attention, if that can be set."""
    name = text_config(model)._attn_implementation
    if not on_tree(model) or not put_on_rows(model):
        yield
        return
    try:
        yield
    finally:
        model.set_attn_implementation(name)


def no_mask(device: torch.device) -> Bool[Tensor, "1 1 0 0"]:
    """Returns a placeholder that passes through an architecture's mask code, and fails if used."""
    return torch.empty(1, 1, 0, 0, dtype=torch.bool, device=device)


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


def scoring(
    tree_mask: TreeMask,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_others: Any,
) -> Scoring:
    """Returns the options that an architecture passes to its attention. A window as large as the
    tree is deep changes nothing, and is left out."""
    if sliding_window is not None and sliding_window >= tree_mask.reach:
        sliding_window = None
    return Scoring(sliding_window, softcap, s_aux)


def tree_attention(
    module: torch.nn.Module,
    query: Float[Tensor, "B H T d"],
    key: Float[Tensor, "B H_kv K d"],
    value: Float[Tensor, "B H_kv K v"],
    attention_mask: Tensor | None,
    *,
    tree_mask: TreeMask | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[Float[Tensor, "B T H v"], None]:
    """transformers' attention interface; without `tree_mask` it is `without_tree`.

    A row of trees is one row: B = 1.
    """
    if tree_mask is None:
        return without_tree(module, query, key, value, attention_mask, scaling, dropout, **others)
    options = scoring(tree_mask, **others)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    query, key, value = (in_autocast(x) for x in (query, key, value))
    own = tree_mask.columns - tree_mask.trunk
    # With one split, backward concatenates gradients once instead of padding each to the row.
    trunk_k, own_k = torch.split(key[:, :, : tree_mask.columns], [tree_mask.trunk, own], 2)
    trunk_v, own_v = torch.split(value[:, :, : tree_mask.columns], [tree_mask.trunk, own], 2)
    parts = []
    if tree_mask.newest is None:
        trunk_q, query = torch.split(query, [tree_mask.trunk, own], 2)
        parts = [
            causal_attention(
                trunk_q[:, :, d], trunk_k[:, :, d], trunk_v[:, :, d], scale, options
            ).transpose(1, 2)
            for d in tree_mask.documents
        ]  # fmt: skip
    if own:
        k, v = (_by_branch(x[0], tree_mask) for x in (own_k, own_v))
        q = fold(query[0] * scale, k.shape[0], len(tree_mask.anchors))
        sinks = None
        if options.sinks is not None:
            each = options.sinks.view(k.shape[0], 1, -1, 1)  # [H_kv, 1, H/H_kv, 1]
            sinks = each.repeat_interleave(q.shape[2] // each.shape[2], 2).to(_exact(q[:1, :1]))
        out: Tensor = _BranchAttention.apply(  # type: ignore[no-untyped-call]
            q, trunk_k[0], trunk_v[0], k, v, sinks, tree_mask, options
        )
        parts.append(unfold(out, query.shape[1])[None])
    return torch.cat(parts, 1), None


def dense_attention(
    module: torch.nn.Module,
    query: Float[Tensor, "B H T d"],
    key: Float[Tensor, "B H_kv K d"],
    value: Float[Tensor, "B H_kv K v"],
    attention_mask: Tensor | None,
    *,
    tree_mask: TreeMask | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[Float[Tensor, "B T H v"], None]:
    """The same from the tree's dense mask; without `tree_mask` it is `without_tree`."""
    if tree_mask is None:
        return without_tree(module, query, key, value, attention_mask, scaling, dropout, **others)
    options = scoring(tree_mask, **others)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    query, key, value = (in_autocast(x) for x in (query, key, value))
    key, value = key[:, :, : tree_mask.columns], value[:, :, : tree_mask.columns]
    seen = tree_mask.dense_within(options.window)[0, 0]
    return masked_attention(query, key, value, seen, scale, options).transpose(1, 2), None


def without_tree(
    module: torch.nn.Module,
    query: Float[Tensor, "B H N d"],
    key: Float[Tensor, "B H_kv K d"],
    value: Float[Tensor, "B H_kv K v"],
    attention_mask: Bool[Tensor, "B 1 N K"] | None,
    scaling: float | None,
    dropout: float,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **others: Any,
) -> tuple[Float[Tensor, "B N H v"], None]:
    """Attention of ordinary texts: transformers' SDPA, or this file's for scores that it does not
    know. It ignores sinks silently."""
    options = Scoring(None, softcap, s_aux)  # a window is in the mask
    if options.plain:
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **others
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    N, K = query.shape[2], key.shape[2]
    if attention_mask is None:
        attention_mask = torch.ones(N, K, dtype=torch.bool, device=query.device).tril(K - N)
    out = masked_attention(query, key, value, attention_mask[..., :K], scale, options)
    return out.transpose(1, 2), None


def causal_attention(
    q: Float[Tensor, "1 H S d"],
    k: Float[Tensor, "1 H_kv S d"],
    v: Float[Tensor, "1 H_kv S v"],
    scale: float,
    options: Scoring,
) -> Float[Tensor, "1 H S v"]:
    """A document's attention to itself. With a window, or scores that SDPA does not know, some
    queries at a time attend to the keys that they see."""
    S, window = q.shape[2], options.window
    if options.plain and (window is None or window >= S):
        return scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scale, enable_gqa=True
        )  # fmt: skip
    parts = []
    for start in range(0, S, CHUNK):
        end = min(start + CHUNK, S)
        first = 0 if window is None else max(0, start - window + 1)
        at, key = (torch.arange(a, end, device=q.device) for a in (start, first))
        seen = key <= at[:, None]
        if window is not None:
            seen &= key > at[:, None] - window
        inputs = q[:, :, start:end], k[:, :, first:end], v[:, :, first:end]
        parts.append(masked_attention(*inputs, seen, scale, options))
    return torch.cat(parts, 2)


def masked_attention(
    q: Float[Tensor, "B H N d"],
    k: Float[Tensor, "B H_kv K d"],
    v: Float[Tensor, "B H_kv K v"],
    seen: Bool[Tensor, "N K"] | Bool[Tensor, "B 1 N K"],
    scale: float,
    options: Scoring,
) -> Float[Tensor, "B H N v"]:
    """Attention with a mask: SDPA if it knows the scores; else computed here, and again in
    backward."""
    if options.plain:
        return scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale, enable_gqa=True)

    def attend(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None) -> Tensor:
        group = q.shape[1] // k.shape[1]
        k, v = (x.repeat_interleave(group, 1) for x in (k, v))
        scores = _capped(_exact((q * scale) @ k.mT), options.cap)
        scores = scores.masked_fill(~seen, float("-inf"))
        if sinks is not None:
            column = sinks.to(scores.dtype).view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
            scores = torch.cat([scores, column], -1)
        return scores.softmax(-1)[..., : k.shape[2]].to(v.dtype) @ v

    inputs = q, k, v, options.sinks
    if not torch.is_grad_enabled():
        return attend(*inputs)
    return cast(Tensor, checkpoint(attend, *inputs, use_reentrant=False, preserve_rng_state=False))


def in_autocast(x: Tensor) -> Tensor:
    """Casts to autocast's precision if it is on, as SDPA does: rotary embeddings give float32."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


def fold(x: Float[Tensor, "H N d"], heads: int, branches: int) -> Float[Tensor, "H_kv Q R d"]:
    """Groups the queries of a branch and of all heads that share a key head: R = H/H_kv · N/Q."""
    H, N, d = x.shape
    split = x.view(heads, H // heads, branches, N // branches, d)
    return split.transpose(1, 2).reshape(heads, branches, -1, d)


def unfold(x: Float[Tensor, "H_kv Q R d"], H: int) -> Float[Tensor, "N H d"]:
    """Inverts `fold`; returns the heads of each query."""
    heads, branches, _, d = x.shape
    split = x.view(heads, branches, H // heads, -1, d)
    return split.permute(1, 3, 0, 2, 4).reshape(-1, H, d)


def _by_branch(x: Float[Tensor, "H N d"], tree_mask: TreeMask) -> Float[Tensor, "H Q G d"]:
    x = torch.unflatten(x, 1, (-1, tree_mask.steps))
    return x if tree_mask.newest is None else x[:, :, : tree_mask.newest + 1]


class _BranchAttention(torch.autograd.Function):
    """softmax([q·K_trunk below the anchor, q·K_own up to itself, sink]) · [V_trunk, V_own, 0].

    Shapes: q [H_kv, Q, R, d], scaled and folded, trunk K, V [H_kv, S, d], own K, V [H_kv, Q, G, d],
    sinks [H_kv, 1, R, 1]. Queries are all tokens of a branch, or only the newest.
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
        own, _ = _own_scores(q, k, tree_mask, options)
        out = q.new_empty(*q.shape[:3], v.shape[-1])
        for group in tree_mask.groups_within(options.window):
            part = group.branches
            p, _ = _probabilities(q[:, part], K[:, group.keys], own[:, part], sinks, group, options)
            trunk, own[:, part], _ = _parts(p.to(V.dtype), group, k.shape[2])
            out[:, part] = _each(_flat(trunk) @ V[:, group.keys], part)
        ctx.save_for_backward(q, K, V, k, v, sinks, out.add_(own.to(v.dtype) @ v))
        ctx.tree_mask, ctx.options = tree_mask, options
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, K, V, k, v, sinks, out = ctx.saved_tensors
        tree_mask, options = ctx.tree_mask, ctx.options
        exact = torch.promote_types(K.dtype, torch.float32)  # sums over many branches
        dK, dV = torch.zeros_like(K, dtype=exact), torch.zeros_like(V, dtype=exact)
        d_sinks = None if sinks is None else torch.zeros_like(sinks)
        # The softmax's derivative is p·(dp − mean dp), with dp = grad·valueᵀ and its mean grad·out.
        # A sink has no value, so its dp is 0.
        mean = (grad * out).sum(-1, keepdim=True, dtype=exact)
        p_own, slope_own = _own_scores(q, k, tree_mask, options)
        dq, dp_own = torch.empty_like(q), grad @ v.mT
        for group in tree_mask.groups_within(options.window):
            part, keys = group.branches, group.keys
            queries, d_out = _flat(q[:, part]), _flat(grad[:, part])
            p, slope = _probabilities(q[:, part], K[:, keys], p_own[:, part], sinks, group, options)
            trunk, p_own[:, part], p_sink = _parts(p, group, k.shape[2])
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
    q: Float[Tensor, "H Q R d"], k: Float[Tensor, "H Q G d"], tree_mask: TreeMask, options: Scoring
) -> tuple[Float[Tensor, "H Q R G"], Float[Tensor, "H Q R G"] | None]:
    """Scores of queries against their own branch, −∞ for tokens that they do not see, float32 at
    least; and their derivative by the scores before the cap."""
    s = _capped(_exact(q @ k.mT), options.cap)
    slope = _slope(s, options.cap)
    G, window = k.shape[2], options.window
    key = torch.arange(G, device=q.device)
    if tree_mask.newest is None:
        at = key[:, None]
        hidden = key > at
    else:  # the newest token sees all of its branch
        at = torch.full((1, 1), tree_mask.newest, device=q.device)
        hidden = torch.zeros(1, G, dtype=torch.bool, device=q.device)
    if window is not None:
        hidden = hidden | (key <= at - window)
    if tree_mask.newest is None or window is not None:
        torch.unflatten(s, 2, (-1, len(at))).masked_fill_(hidden, float("-inf"))
    return s, slope


def _probabilities(
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
    trunk = _capped(_exact(_each(_flat(q) @ K.mT, group.branches)), options.cap)
    slope = _slope(trunk, options.cap)
    hidden = group.hidden
    some = torch.unflatten(trunk[..., group.shared :], 2, (-1, hidden.shape[1]))
    some.masked_fill_(hidden[:, None], float("-inf"))
    columns = [trunk, own]
    if sinks is not None:
        columns.append(sinks.expand(-1, own.shape[1], -1, -1))
    return torch.cat(columns, -1).softmax(-1), slope


def _parts(p: Float[Tensor, "H Q R P"], group: Group, steps: int) -> tuple[Tensor, ...]:
    """A group's probabilities of the trunk's keys, of the branches' own, and of the sink."""
    K = group.keys.stop - group.keys.start
    return torch.split(p, [K, steps, p.shape[-1] - K - steps], -1)


def _capped(scores: Tensor, cap: float | None) -> Tensor:
    return scores if cap is None else (scores / cap).tanh() * cap


def _slope(capped: Tensor, cap: float | None) -> Tensor | None:
    return None if cap is None else 1 - (capped / cap) ** 2


def _exact(scores: Tensor) -> Tensor:
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def _flat(x: Float[Tensor, "H Q R d"]) -> Float[Tensor, "H N d"]:
    return x.flatten(1, 2)


def _each(x: Float[Tensor, "H N d"], branches: slice) -> Float[Tensor, "H Q R d"]:
    return torch.unflatten(x, 1, (branches.stop - branches.start, -1))


# Not compiled: its loops depend on the tree, so every tree would recompile it.
for _name, _attention in ((TREE, tree_attention), (DENSE, dense_attention)):
    AttentionInterface.register(
        _name,
        torch.compiler.disable(_attention),  # type: ignore[no-untyped-call]
    )
    AttentionMaskInterface.register(_name, sdpa_mask)
