"""Attention over a tree at the cost of what its tokens see, for any Hugging Face decoder.

A dense mask over all T tokens of a tree costs T², but a branch token sees its prefix and its own
few tokens. Here the trunk attends to itself causally, and the branches, in groups of similar
anchors, to as much of the trunk as the group needs and to themselves. Backward computes the
probabilities again from each query's log-sum-exp, so no [queries, keys] matrix is ever kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ebft.rollout.sees import Sees

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "ebft_tree"
DENSE = "ebft_dense"
"""The oracle: transformers' SDPA under the tree's mask, with the same refusals."""
GROUPS = 8
"""Groups of branches: more waste fewer hidden keys, fewer make larger products."""
REFUSED = ("sliding_window", "softcap", "s_aux")
"""What some architectures ask of attention that is not done here."""


def uses_tree_attention(model: PreTrainedModel) -> bool:
    """Whether the model was loaded with this attention, and not with its dense oracle.

    Raises `ValueError` for any other attention: it would not know what the tree's tokens see.
    """
    name = model.config._attn_implementation
    if name not in (NAME, DENSE):
        raise ValueError(
            f"the model was loaded with attention {name}, which knows no trees; give "
            f'attn_implementation="{NAME}" (or "{DENSE}") when it is loaded'
        )
    return bool(name == NAME)


def no_mask(device: torch.device) -> Bool[Tensor, "1 1 0 0"]:
    """Passes through an architecture's mask-making, and fails wherever it would be used as one."""
    return torch.empty(1, 1, 0, 0, dtype=torch.bool, device=device)


def tree_attention(
    module: torch.nn.Module,
    query: Float[Tensor, "B H T d"],
    key: Float[Tensor, "B H_kv K d"],
    value: Float[Tensor, "B H_kv K d"],
    attention_mask: Tensor | None,
    *,
    sees: Sees | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[Float[Tensor, "B T H d"], None]:
    """transformers' attention interface; without `sees` it is transformers' own SDPA.

    Raises `ValueError` for sliding windows, capped scores and sinks, which it would get wrong.
    """
    if sees is None:
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask,
            scaling=scaling, dropout=dropout, **others,
        )  # fmt: skip
    _refuse(module, sees, others)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    S, parts = sees.trunk, []
    trunk_key, trunk_value = key[:, :, :S], value[:, :, :S]
    if not sees.decoding:
        trunk = scaled_dot_product_attention(
            query[:, :, :S], trunk_key, trunk_value, is_causal=True, scale=scale, enable_gqa=True
        )
        parts.append(trunk)
    if sees.branches:
        own = (_by_branch(x[:, :, S:], sees) for x in (key, value))
        q = query if sees.decoding else query[:, :, S:]
        q = _split(q, 2, sees.branches)
        out: Tensor = _BranchAttention.apply(  # type: ignore[no-untyped-call]
            q, trunk_key, trunk_value, *own, sees.anchors, scale
        )
        parts.append(out.flatten(2, 3))
    return torch.cat(parts, 2).transpose(1, 2), None


def dense_attention(
    module: torch.nn.Module,
    query: Float[Tensor, "B H T d"],
    key: Float[Tensor, "B H_kv K d"],
    value: Float[Tensor, "B H_kv K d"],
    attention_mask: Tensor | None,
    *,
    sees: Sees | None = None,
    **others: Any,
) -> tuple[Float[Tensor, "B T H d"], None]:
    """transformers' own SDPA under `attention_mask`; with `sees`, refuses what `tree` refuses."""
    if sees is not None:
        _refuse(module, sees, others)
    return sdpa_attention_forward(  # type: ignore[no-any-return]
        module, query, key, value, attention_mask, **others
    )


def _refuse(module: torch.nn.Module, sees: Sees, options: dict[str, Any]) -> None:
    for option in REFUSED:
        value, longest = options.get(option), sees.trunk + sees.steps
        if value is None or (option == "sliding_window" and value >= longest):
            continue  # a window that holds everything is none
        advice = "give another model"
        if option == "sliding_window":
            advice += f", or documents and rollouts of at most {value} tokens together"
        raise ValueError(
            f"{type(module).__name__} has {option} = {value}, which attention over a tree does not "
            f"support (this tree is {longest} tokens deep); {advice}"
        )


def _by_branch(x: Float[Tensor, "B H N d"], sees: Sees) -> Float[Tensor, "B H Q G d"]:
    if sees.decoding:
        return _split(x, 2, sees.steps).transpose(2, 3)
    return _split(x, 2, sees.branches)


class _BranchAttention(torch.autograd.Function):
    """softmax([q·K_trunk below the anchor, q·K_own up to itself]) · [V_trunk, V_own].

    Shapes: q [B, H, Q, g, d], trunk K, V [B, H_kv, S, d], own K, V [B, H_kv, Q, G, d] with g ≤ G
    newest tokens as queries, anchors [B, Q].
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        K: Tensor,
        V: Tensor,
        k: Tensor,
        v: Tensor,
        anchors: Tensor,
        scale: float,
    ) -> Tensor:
        out, normalizers = [], []
        for part, keys in _groups(anchors):
            s = _scores(q[:, :, part], K[:, :, :keys], k[:, :, part], anchors[:, part], scale)
            normalizer = s.logsumexp(-1, keepdim=True)
            p = s.sub_(normalizer).exp_().to(V.dtype)
            out.append(_mix(p, V[:, :, :keys], v[:, :, part]))
            normalizers.append(normalizer)
        result = torch.cat(out, 2)
        ctx.save_for_backward(q, K, V, k, v, anchors, result, torch.cat(normalizers, 3))
        ctx.scale = scale
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, K, V, k, v, anchors, out, normalizers = ctx.saved_tensors
        heads, scale = K.shape[1], ctx.scale
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        dK = torch.zeros(K.shape, dtype=normalizers.dtype, device=K.device)
        dV = torch.zeros_like(dK)
        for part, keys in _groups(anchors):
            q_part, trunk_K, trunk_V = q[:, :, part], K[:, :, :keys], V[:, :, :keys]
            k_part, v_part = k[:, :, part], v[:, :, part]
            d_out, o = _fold(grad[:, :, part], heads), _fold(out[:, :, part], heads)
            s = _scores(q_part, trunk_K, k_part, anchors[:, part], scale)
            p = s.sub_(normalizers[:, :, :, part]).exp_()
            pd = p.to(V.dtype)
            dV[:, :, :keys] += _flat(pd[..., :keys]).mT @ _flat(d_out)
            dv[:, :, part] = (pd[..., keys:].mT @ d_out).sum(2)
            # d p = d_out · valueᵀ, then the softmax's own derivative.
            dp = _join(_flat(d_out) @ trunk_V.mT, _own(d_out, v_part.mT), d_out)
            ds = p.mul_(dp - (d_out * o).sum(-1, keepdim=True)).mul_(scale).to(q.dtype)
            f = _fold(q_part, heads)
            dK[:, :, :keys] += _flat(ds[..., :keys]).mT @ _flat(f)
            dk[:, :, part] = (ds[..., keys:].mT @ f).sum(2)
            df = (_flat(ds[..., :keys]) @ trunk_K).view_as(f) + _own(ds[..., keys:], k_part)
            dq[:, :, part] = df.flatten(1, 2)
        return dq, dK.to(K.dtype), dV.to(V.dtype), dk, dv, None, None


def _groups(anchors: Int[Tensor, "B Q"]) -> list[tuple[slice, int]]:
    """Branches that stand together, and the trunk keys that any of them sees."""
    Q = anchors.shape[1]
    size = -(-Q // GROUPS)
    most = anchors.amax(0).tolist()
    return [
        (slice(at, min(at + size, Q)), max(most[at : at + size], default=0))
        for at in range(0, Q, size)
    ]


def _split(x: Tensor, dim: int, parts: int) -> Tensor:
    return x.reshape(*x.shape[:dim], parts, x.shape[dim] // parts, *x.shape[dim + 1 :])


def _fold(x: Float[Tensor, "B H Q g d"], heads: int) -> Float[Tensor, "B H_kv r Q g d"]:
    """Query heads by the key head they share, instead of keys repeated for each of them."""
    return _split(x, 1, heads)


def _flat(x: Float[Tensor, "B H_kv r Q g d"]) -> Float[Tensor, "B H_kv N d"]:
    return x.flatten(2, 4)


def _own(x: Float[Tensor, "B H_kv r Q g a"], y: Float[Tensor, "B H_kv Q a b"]) -> Tensor:
    return x @ y[:, :, None]


def _join(trunk: Float[Tensor, "B H_kv N K"], own: Tensor, like: Tensor) -> Tensor:
    return torch.cat([trunk.view(*like.shape[:-1], trunk.shape[-1]), own], -1)


def _scores(q: Tensor, K: Tensor, k: Tensor, anchors: Int[Tensor, "B Q"], scale: float) -> Tensor:
    """Scores [B, H_kv, r, Q, g, keys + G], −∞ where a query does not see; float32 at least."""
    f, (g, G) = _fold(q, K.shape[1]), (q.shape[3], k.shape[3])
    s = _join(_flat(f) @ K.mT, _own(f, k.mT), f)
    s = s.to(torch.promote_types(s.dtype, torch.float32)).mul_(scale)
    key = torch.arange(K.shape[2], device=K.device)
    hidden = key >= anchors[:, None, None, :, None, None]
    s[..., : len(key)].masked_fill_(hidden, float("-inf"))
    if g > 1:  # the newest token alone sees all of its branch
        later = torch.ones(g, G, dtype=torch.bool, device=K.device).triu(1 + G - g)
        s[..., len(key) :].masked_fill_(later, float("-inf"))
    return s


def _mix(p: Tensor, V: Tensor, v: Tensor) -> Float[Tensor, "B H Q g d"]:
    keys = V.shape[2]
    trunk = (_flat(p[..., :keys]) @ V).view(*p.shape[:-1], V.shape[-1])
    return (trunk + _own(p[..., keys:], v)).flatten(1, 2)


AttentionInterface.register(NAME, tree_attention)
AttentionInterface.register(DENSE, dense_attention)
for _name in (NAME, DENSE):
    AttentionMaskInterface.register(_name, sdpa_mask)
