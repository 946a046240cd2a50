"""The layout that a model computes on: a tree if the model is exact there, rows otherwise."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from ebft.errors import UserError
from ebft.models.attention import on_tree, put_on_rows
from ebft.models.decoder import text_config
from ebft.models.folders import PATH
from ebft.models.probe import (
    TOLERANCE,
    as_rollouts,
    gap_or_reason,
    gap_to_rows,
    mixes_branches,
)
from ebft.models.row_cache import Caching, set_caching
from ebft.models.shape import context_length
from ebft.models.tokenizer import embedded_tokens
from ebft.models.tree_log_probs import tree_log_probs
from ebft.models.whole import is_sharded
from ebft.rollout.contexts import make_contexts
from ebft.rollout.records import Contexts, Document, Rollouts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SHORT = 12
"""Tokens of the other documents that a model is tried on."""
DECODED = 8
"""Tokens of a rollout that are sampled to try a cache."""
FEW = 2
"""Tokens of a rollout that show whether branches are mixed, and whether there is a backward."""
SAME, ROUNDING = 10.0, 1e-5
"""A gap is as small as another if it is at most so many times as large, plus so many nats."""

log = logging.getLogger("ebft")


class Depth(NamedTuple):
    """The most tokens of a document, and of a rollout."""

    document: int
    rollout: int


class Loaded(NamedTuple):
    """A policy and its tokenizer; `attention` is the option that it was loaded with.

    `why_rows` is why it is not on the tree, as the end of a sentence; None if that was not asked,
    or if it is on the tree. `key` is the option that names the model.
    """

    policy: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    attention: str
    why_rows: str | None = None
    key: str = PATH


Load = Callable[[str], tuple["PreTrainedModel", "PreTrainedTokenizerBase"]]
"""Loads the policy with a `model.attention`."""
Sample = Callable[["PreTrainedModel", "PreTrainedTokenizerBase", Contexts], Rollouts]
"""Samples from a policy in float32, with the cache that it has on its layout."""


def load_exact(
    load: Load, attention: str, *, depth: Depth, sample: Sample, key: str = PATH
) -> Loaded:
    """Loads a policy. For `auto` it is put on the layout that is exact for it; on rows, it is found
    out how its cache may be used.

    Raises `UserError` if no layout is exact, and if a policy on rows cannot be sampled from.
    """
    if attention == "auto":
        loaded = _load_auto(load, depth, sample, key)
    else:
        loaded = Loaded(*load(attention), attention, key=key)
    if not on_tree(loaded.policy):
        choose_caching(loaded, depth, sample)
    return loaded


def _load_auto(load: Load, depth: Depth, sample: Sample, key: str) -> Loaded:
    loaded = Loaded(*load("auto"), "auto", key=key)
    why = "it does not accept an attention for trees"
    if on_tree(loaded.policy):
        found = why_not_exact(loaded, depth, sample)
        if found is None:
            return loaded._replace(attention="tree")
        why = found
        if not put_on_rows(loaded.policy):
            # In some architectures it cannot be set later. There is no memory for two of them.
            del loaded
            loaded = Loaded(*load("rows"), "rows", key=key)
    if (problem := why_not_exact(loaded, depth, sample)) is not None:
        if problem == why:
            who = type(loaded.policy).__name__
            raise UserError(f"{key}: {who} cannot be used: {why}; give another model")
        raise UserError(
            f"{key}: {type(loaded.policy).__name__} can be computed neither on the tree, "
            f"because {why}, nor on rows, because {problem}; give another model"
        )
    return loaded._replace(attention="rows", why_rows=why)


def why_not_exact(loaded: Loaded, depth: Depth, sample: Sample) -> str | None:
    """Returns why the policy does not compute on its layout what it computes over single texts; as
    the end of a sentence; None if it does.

    It is tried on random tokens as deep as any document with its rollouts can be, because a window
    that is longer than a text has no effect on it. Weights that are not finite decide nothing here.
    A policy whose backward raises is not exact either.
    """
    layout = "the tree" if on_tree(loaded.policy) else "rows"
    log.info("trying the model on %s, with %s random tokens …", layout, f"{depth.document:,}")

    def measure() -> float:
        few = _contexts(loaded, Depth(min(SHORT, depth.document), min(FEW, depth.rollout)))
        short = as_rollouts(few, _random_branches(loaded, few, 2))
        if mixed := mixes_branches(loaded.policy, short):
            raise UserError(mixed)
        gap = gap_on_layout(loaded, _contexts(loaded, depth), sample)
        try_backward(loaded.policy, short)
        return gap

    gap = gap_or_reason(measure)
    if isinstance(gap, str):
        return gap
    if math.isnan(gap) or gap <= TOLERANCE:
        return None
    return f"its log-probs differ there by {gap:.2g} nats from those over single texts"


@torch.no_grad()
def gap_on_layout(loaded: Loaded, contexts: Contexts, sample: Sample) -> float:
    """Returns the largest difference in nats between log-probs on the policy's layout and those of
    rows, and on a tree those of sampling: all from one forward on the layout."""
    branches = _random_branches(loaded, contexts, 1)
    parts = [contexts.reference[:, None], branches]
    sampled: Rollouts | None = None
    if on_tree(loaded.policy):
        sampled = sample(loaded.policy, loaded.tokenizer, _first(contexts, DECODED))
        n, length = sampled.tokens.shape[1:]
        rest = branches[..., length:].expand(-1, n, -1)
        parts.insert(1, torch.cat([sampled.tokens, rest], -1))
    rollouts = as_rollouts(contexts, torch.cat(parts, 1))
    found = tree_log_probs(loaded.policy, rollouts)
    gaps = torch.tensor([gap_to_rows(loaded.policy, rollouts, found), 0.0])
    if sampled is not None:
        trained = found.rollouts[:, 1:-1, : sampled.tokens.shape[-1]]
        gaps[1] = (trained - sampled.log_probs).abs().max()
    return float(gaps.max())  # NaN if one of them is


def try_backward(policy: PreTrainedModel, rollouts: Rollouts) -> None:
    """Computes the gradient of the token embeddings, which goes through all layers; of a sharded
    policy that of all its trained weights. Raises what the architecture raises. Does nothing for a
    policy that is only measured."""
    embeddings = policy.get_input_embeddings().weight
    trained = [p for p in policy.parameters() if p.requires_grad]
    if not (trained if is_sharded(policy) else embeddings.requires_grad):
        return
    with torch.enable_grad():
        log_probs = tree_log_probs(policy, rollouts).rollouts
        if not is_sharded(policy):
            torch.autograd.grad(log_probs.sum(), embeddings)
            return
        log_probs.sum().backward()  # type: ignore[no-untyped-call]
    for parameter in trained:
        parameter.grad = None


def choose_caching(loaded: Loaded, depth: Depth, sample: Sample) -> None:
    """Finds out how the cache of a policy on rows may be used, and sets it.

    A cache that is continued must be as exact as one that is prefilled: a gap that is small because
    the weights are small grows with them. Raises `UserError` if the policy cannot even be sampled
    from without a cache.
    """
    log.info("trying the model's cache on rows …")
    contexts = _contexts(loaded, depth)

    def gap_with(how: Caching) -> float | str:
        set_caching(loaded.policy, how)
        gap = gap_or_reason(lambda: sampling_gap(loaded, contexts, sample))
        # Weights that are not finite decide nothing here.
        return 0.0 if isinstance(gap, float) and math.isnan(gap) else gap

    continued, prefilled = gap_with(Caching.CONTINUED), gap_with(Caching.PREFILLED)
    chosen = Caching.NONE
    if isinstance(prefilled, float) and prefilled <= TOLERANCE:
        chosen = Caching.PREFILLED
        if isinstance(continued, float) and continued <= SAME * prefilled + ROUNDING:
            chosen = Caching.CONTINUED
    gap = gap_with(chosen)
    if isinstance(gap, str) or gap > TOLERANCE:
        what = gap if isinstance(gap, str) else f"log-probs of its tokens are {gap:.2g} nats off"
        who = type(loaded.policy).__name__
        raise UserError(
            f"{loaded.key}: {who} cannot be sampled from on rows, because {what}; give another "
            "model"
        )
    log.info(
        "rows are sampled with the model's own cache (%s); log-probs of their tokens differ by at "
        "most %.1g nats from those in training", chosen.value, gap,
    )  # fmt: skip


@torch.no_grad()
def sampling_gap(loaded: Loaded, contexts: Contexts, sample: Sample) -> float:
    """Returns the largest difference in nats between log-probs of tokens when they are sampled on a
    cache and when they are trained on."""
    rollouts = sample(loaded.policy, loaded.tokenizer, _first(contexts, DECODED))
    trained = tree_log_probs(loaded.policy, rollouts, train_documents=False).rollouts
    return float((trained - rollouts.log_probs).abs().max())


def _contexts(loaded: Loaded, depth: Depth) -> Contexts:
    """Contexts of random documents: one of the greatest length and another of half of it, and one
    of each of two short documents, whose rows share a cache. All documents go on after them."""
    reads = context_length(text_config(loaded.policy))
    length = depth.document
    if reads is not None:
        length = max(1, min(length, reads - depth.rollout))
    short = min(SHORT, length)
    lengths = [each + depth.rollout for each in (length, short, short)]
    tokens = torch.split(_random(loaded, (sum(lengths),)), lengths)
    documents = [Document(f"random {i}", text) for i, text in enumerate(tokens)]
    middle, short_middle = -(-length // 2), -(-short // 2)
    anchors = [sorted({middle, length}), [short_middle], [short_middle]]
    return make_contexts(
        documents,
        [torch.tensor(each) for each in anchors],
        rollout_length=depth.rollout,
        stop_at_eos=False,
    ).to(loaded.policy.device)


def _first(contexts: Contexts, length: int) -> Contexts:
    """The same contexts for rollouts of at most `length` tokens."""
    return replace(
        contexts,
        reference=contexts.reference[:, :length],
        reference_mask=contexts.reference_mask[:, :length],
    )


def _random_branches(loaded: Loaded, contexts: Contexts, n: int) -> Int[Tensor, "P n G"]:
    tokens = _random(loaded, (len(contexts), n, contexts.rollout_length))
    return tokens.to(loaded.policy.device)


def _random(loaded: Loaded, shape: tuple[int, ...]) -> Tensor:
    """Random tokens of the vocabulary, none of them special: those may stand for an image."""
    most = min(len(loaded.tokenizer), embedded_tokens(loaded.policy))
    special = set(loaded.tokenizer.all_special_ids)
    ids = torch.tensor([i for i in range(most) if i not in special])
    generator = torch.Generator().manual_seed(0)
    return ids[torch.randint(len(ids), shape, generator=generator)]
