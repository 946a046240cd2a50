"""Attention over a row of trees at the cost of what its tokens see, for any Hugging Face decoder.

A dense mask over all T tokens costs T², but a branch token sees only its prefix and its own few
tokens. Here each trunk attends to itself causally. Branches attend, in groups of similar anchors,
to the part of their trunk that the group needs, and to themselves. Backward computes the
probabilities again, so no [queries, keys] matrix is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
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
REFUSED = ("sliding_window", "softcap", "s_aux")
"""Attention options of some architectures that are not supported here."""


def on_tree(model: PreTrainedModel) -> bool:
    """Returns whether the model was loaded with an attention that supports trees.

    Any other attention, and a recurrence, computes rows.
    """
    return text_config(model)._attn_implementation in (TREE, FLEX, DENSE)


def needs_mask(model: PreTrainedModel) -> bool:
    """Returns whether the model's attention needs the dense mask, and not a `TreeMask`."""
    return bool(text_config(model)._attn_implementation == DENSE)


def no_mask(device: torch.device) -> Bool[Tensor, "1 1 0 0"]:
    """Returns a placeholder that passes through an architecture's mask code, and fails if used."""
    return torch.empty(1, 1, 0, 0, dtype=torch.bool, device=device)


def tree_attention(
    module: torch.nn.Module,
    query: Float[Tensor, "B H T d"],
    key: Float[Tensor, "B H_kv K d"],
    value: Float[Tensor, "B H_kv K d"],
    attention_mask: Tensor | None,
    *,
    tree_mask: TreeMask | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[Float[Tensor, "B T H d"], None]:
    """transformers' attention interface; without `tree_mask` it is transformers' own SDPA.

    A row of trees is one row: B = 1.
    Raises `ValueError` for sliding windows, capped scores and sinks, which are not supported.
    """
    if tree_mask is None:
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask,
            scaling=scaling, dropout=dropout, **others,
        )  # fmt: skip
    refuse(module, tree_mask, others)
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
            scaled_dot_product_attention(
                trunk_q[:, :, d], trunk_k[:, :, d], trunk_v[:, :, d],
                is_causal=True, scale=scale, enable_gqa=True,
            ).transpose(1, 2)
            for d in tree_mask.documents
        ]  # fmt: skip
    if own:
        k, v = (_by_branch(x[0], tree_mask) for x in (own_k, own_v))
        q = fold(query[0] * scale, k.shape[0], len(tree_mask.anchors))
        out: Tensor = _BranchAttention.apply(  # type: ignore[no-untyped-call]
            q, trunk_k[0], trunk_v[0], k, v, tree_mask
        )
        parts.append(unfold(out, query.shape[1])[None])
    return torch.cat(parts, 1), None


def dense_attention(
    module: torch.nn.Module,
    query: Float[Tensor, "B H T d"],
    key: Float[Tensor, "B H_kv K d"],
    value: Float[Tensor, "B H_kv K d"],
    attention_mask: Tensor | None,
    *,
    tree_mask: TreeMask | None = None,
    **others: Any,
) -> tuple[Float[Tensor, "B T H d"], None]:
    """transformers' SDPA with `attention_mask`; for a tree, raises where `tree_attention` does."""
    if tree_mask is not None:
        refuse(module, tree_mask, others)
        key, value = key[:, :, : tree_mask.columns], value[:, :, : tree_mask.columns]
    return sdpa_attention_forward(  # type: ignore[no-any-return]
        module, query, key, value, attention_mask, **others
    )


def in_autocast(x: Tensor) -> Tensor:
    """Casts to autocast's precision if it is on, as SDPA does: rotary embeddings give float32."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


def refuse(module: torch.nn.Module, tree_mask: TreeMask, options: dict[str, Any]) -> None:
    """Raises `ValueError` for attention options of the model that are not supported."""
    for option in REFUSED:
        value = options.get(option)
        if value is None or (option == "sliding_window" and value >= tree_mask.reach):
            continue  # a window as large as the tree changes nothing
        advice = "give another model"
        if option == "sliding_window":
            advice += f", or documents and rollouts of at most {value} tokens together"
        raise ValueError(
            f"{type(module).__name__} has {option} = {value}, which attention over a tree does not "
            f"support (this tree is {tree_mask.reach} tokens deep); {advice}"
        )


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
    """softmax([q·K_trunk below the anchor, q·K_own up to itself]) · [V_trunk, V_own].

    Shapes: q [H_kv, Q, R, d], scaled and folded, trunk K, V [H_kv, S, d], own K, V [H_kv, Q, G, d].
    Queries are all tokens of a branch, or only the newest.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, K: Tensor, V: Tensor, k: Tensor, v: Tensor, tree_mask: TreeMask
    ) -> Tensor:
        own, out = _own_scores(q, k, tree_mask), torch.empty_like(q)
        for group in tree_mask.groups:
            part = group.branches
            p = _probabilities(q[:, part], K[:, group.keys], own[:, part], group).to(V.dtype)
            trunk, own[:, part] = torch.split(p, [p.shape[-1] - k.shape[2], k.shape[2]], -1)
            out[:, part] = _each(_flat(trunk) @ V[:, group.keys], part)
        ctx.save_for_backward(q, K, V, k, v, out.add_(own.to(v.dtype) @ v))
        ctx.tree_mask = tree_mask
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, K, V, k, v, out = ctx.saved_tensors
        exact = torch.promote_types(K.dtype, torch.float32)  # sums over many branches
        dK, dV = torch.zeros_like(K, dtype=exact), torch.zeros_like(V, dtype=exact)
        # The softmax's derivative is p·(dp − mean dp), with dp = grad·valueᵀ and its mean grad·out.
        mean = (grad * out).sum(-1, keepdim=True, dtype=exact)
        p_own, dq, dp_own = _own_scores(q, k, ctx.tree_mask), torch.empty_like(q), grad @ v.mT
        for group in ctx.tree_mask.groups:
            part, keys = group.branches, group.keys
            queries, d_out = _flat(q[:, part]), _flat(grad[:, part])
            p = _probabilities(q[:, part], K[:, keys], p_own[:, part], group)
            trunk, p_own[:, part] = torch.split(p, [p.shape[-1] - k.shape[2], k.shape[2]], -1)
            dV[:, keys] += _flat(trunk).to(V.dtype).mT @ d_out
            ds = _each(d_out @ V[:, keys].mT, part).sub(mean[:, part]).mul_(trunk).to(q.dtype)
            dK[:, keys] += _flat(ds).mT @ queries
            dq[:, part] = _each(_flat(ds) @ K[:, keys], part)
        dv = p_own.to(v.dtype).mT @ grad
        ds_own = (p_own * (dp_own - mean)).to(q.dtype)
        return dq.add_(ds_own @ k), dK.to(K.dtype), dV.to(V.dtype), ds_own.mT @ q, dv, None


def _own_scores(
    q: Float[Tensor, "H Q R d"], k: Float[Tensor, "H Q G d"], tree_mask: TreeMask
) -> Float[Tensor, "H Q R G"]:
    """Scores of queries against their own branch, −∞ for later tokens; float32 at least."""
    s = _exact(q @ k.mT)
    if tree_mask.newest is None:  # the newest token sees all of its branch
        later = torch.ones(
            tree_mask.steps, tree_mask.steps, dtype=torch.bool, device=q.device
        ).triu(1)
        torch.unflatten(s, 2, (-1, tree_mask.steps)).masked_fill_(later, float("-inf"))
    return s


def _probabilities(
    q: Float[Tensor, "H Q R d"],
    K: Float[Tensor, "H K d"],
    own: Float[Tensor, "H Q R G"],
    group: Group,
) -> Float[Tensor, "H Q R K+G"]:
    """A group's attention probabilities: over its trunk's keys, then over each branch's own."""
    trunk = _exact(_each(_flat(q) @ K.mT, group.branches))
    trunk[..., group.shared :].masked_fill_(group.hidden, float("-inf"))
    return torch.cat([trunk, own], -1).softmax(-1)


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
