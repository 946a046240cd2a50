"""Attention over a row of trees at the cost of what its tokens see, for any Hugging Face decoder.

A dense mask over all T tokens costs T², but a branch token sees only its prefix and its own few
tokens. Here each trunk attends to itself causally. Branches attend, in groups of similar anchors,
to the part of their trunk that the group needs, and to themselves. Backward computes the
probabilities again, so no [queries, keys] matrix is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ebft.models.branch_attention import BranchAttention, Scoring, capped_scores, exact
from ebft.models.decoder import text_config
from ebft.models.newest_attention import newest_attention
from ebft.rollout.tree_mask import TreeMask

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Attention = Callable[..., tuple[Tensor, None]]
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


def pads_trunks(model: PreTrainedModel) -> bool:
    """Returns whether the model's attention takes trunks that are padded to one length in the cache
    (`TreeMask.padded`)."""
    return bool(text_config(model)._attn_implementation == TREE)


def put_on_rows(model: PreTrainedModel) -> bool:
    """Gives a model that was loaded with an attention for trees its own; returns whether that
    worked. Older architectures can only be loaded again."""
    for name in ("eager",) if _caps_scores(model) else ("sdpa", "eager"):
        with suppress(ValueError):  # of architectures without the first
            model.set_attn_implementation(name)
            break
    return not on_tree(model)


def keep_caps(model: PreTrainedModel) -> None:
    """Gives a model of capped scores an attention that caps them.

    With transformers 5.17, which loads Gemma 2 with SDPA, that ignores the cap without a word.
    """
    if _caps_scores(model) and text_config(model)._attn_implementation == "sdpa":
        model.set_attn_implementation("eager")


def _caps_scores(model: PreTrainedModel) -> bool:
    return getattr(text_config(model), "attn_logit_softcapping", None) is not None


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
    if tree_mask.newest is not None:
        q = fold(query[0] * scale, key.shape[1], query.shape[2])
        out = newest_attention(q, key[0], value[0], _sinks(options, q), tree_mask, options)
        return unfold(out, query.shape[1])[None], None
    # With one split, backward concatenates gradients once instead of padding each to the row.
    trunk_q, own_q = torch.split(query, [tree_mask.trunk, own], 2)
    trunk_k, own_k = torch.split(key[:, :, : tree_mask.columns], [tree_mask.trunk, own], 2)
    trunk_v, own_v = torch.split(value[:, :, : tree_mask.columns], [tree_mask.trunk, own], 2)
    parts = [
        causal_attention(
            trunk_q[:, :, d], trunk_k[:, :, d], trunk_v[:, :, d], scale, options
        ).transpose(1, 2)
        for d in tree_mask.documents
    ]  # fmt: skip
    if own:
        k, v = (torch.unflatten(x[0], 1, (-1, tree_mask.steps)) for x in (own_k, own_v))
        q = fold(own_q[0] * scale, k.shape[0], len(tree_mask.anchors))
        branches: Tensor = BranchAttention.apply(  # type: ignore[no-untyped-call]
            q, trunk_k[0], trunk_v[0], k, v, _sinks(options, q), tree_mask, options
        )
        parts.append(unfold(branches, query.shape[1])[None])
    return torch.cat(parts, 1), None


def _sinks(options: Scoring, q: Float[Tensor, "H Q R d"]) -> Float[Tensor, "H 1 R 1"] | None:
    """The score of the sink of each folded query."""
    if options.sinks is None:
        return None
    each = options.sinks.view(q.shape[0], 1, -1, 1)  # [H_kv, 1, H/H_kv, 1]
    return each.repeat_interleave(q.shape[2] // each.shape[2], 2).to(exact(q[:1, :1]))


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
        scores = capped_scores(exact((q * scale) @ k.mT), options.cap)
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


def of_merged(attention: Attention) -> Attention:
    """Returns an attention over trees that also takes merged ones.

    Queries, keys and values of the tokens that were computed are spread out to the whole row, and
    what the same tokens attend to is returned. While branches are sampled, the cache has spread out
    keys and values already.
    """

    @wraps(attention)
    def spread_out(
        module: torch.nn.Module,
        query: Float[Tensor, "B H N d"],
        key: Float[Tensor, "B H_kv K d"],
        value: Float[Tensor, "B H_kv K v"],
        attention_mask: Tensor | None,
        *,
        tree_mask: TreeMask | None = None,
        **others: Any,
    ) -> tuple[Float[Tensor, "B N H v"], None]:
        merged = None if tree_mask is None else tree_mask.merged
        if tree_mask is not None and merged is not None:
            query = query.index_select(2, merged.spread)
            if tree_mask.newest is None:
                key, value = (x.index_select(2, merged.spread) for x in (key, value))
        out, weights = attention(
            module, query, key, value, attention_mask, tree_mask=tree_mask, **others
        )
        return out if merged is None else out.index_select(1, merged.kept), weights

    return spread_out


# Not compiled: its loops depend on the tree, so every tree would recompile it.
for _name, _attention in ((TREE, tree_attention), (DENSE, dense_attention)):
    AttentionInterface.register(
        _name,
        torch.compiler.disable(of_merged(_attention)),  # type: ignore[no-untyped-call]
    )
    AttentionMaskInterface.register(_name, sdpa_mask)
