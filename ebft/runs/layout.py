"""The layout that a model computes on: a tree if the model is exact there, rows otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch

from ebft.errors import UserError, is_out_of_memory
from ebft.models.attention import on_tree, put_on_rows
from ebft.models.decoder import text_config
from ebft.models.probe import TOLERANCE, as_rollouts, largest_gap, reason
from ebft.models.row_cache import Caching, set_caching
from ebft.models.shape import context_length
from ebft.models.tokenizer import embedded_tokens
from ebft.models.tree_log_probs import tree_log_probs
from ebft.rollout.contexts import make_contexts
from ebft.rollout.records import Contexts, Document
from ebft.samplers.hf_tree import HfTree

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ebft.parts.part import Resources

SHORT = 12
"""Tokens of the other documents that a model is tried on."""
DECODED = 8
"""Tokens of a rollout that are sampled to try a cache."""
SAME, ROUNDING = 10.0, 1e-5
"""A gap is as small as another if it is at most so many times as large, plus so many nats."""


class Depth(NamedTuple):
    """The most tokens of a document, and of a rollout."""

    document: int
    rollout: int


def choose_layout(
    alone: Callable[[PreTrainedModel], Resources],
    policy: PreTrainedModel,
    depth: Depth,
    load_again: Callable[[], PreTrainedModel],
) -> tuple[PreTrainedModel, str | None]:
    """Returns the policy on the layout that is exact for it, and why that is not the tree (None if
    it is).

    `load_again` loads it with its own attention, for architectures in which that cannot be set
    later; `alone` returns what a sampler needs. Raises `UserError` if no layout is exact.
    """
    why = "it does not accept an attention for trees"
    if on_tree(policy):
        found = why_not_exact(alone(policy), depth)
        if found is None:
            return policy, None
        why = found
    if on_tree(policy) and not put_on_rows(policy):
        policy = load_again()
    if (problem := why_not_exact(alone(policy), depth)) is not None:
        raise UserError(
            f"model.path: {type(policy).__name__} can be computed neither on the tree, because "
            f"{why}, nor on rows, because {problem}; give another model"
        )
    return policy, why


def why_not_exact(resources: Resources, depth: Depth) -> str | None:
    """Returns why the policy does not compute on its layout what it computes over single texts; as
    the end of a sentence; None if it does.

    It is tried on random tokens as deep as any document with its rollouts can be, because a window
    that is longer than a text has no effect on it. Weights that are not finite decide nothing here.
    """
    try:
        contexts = _contexts(resources, depth)
        shape = (len(contexts), 2, contexts.rollout_length)
        gap = largest_gap(resources.policy, as_rollouts(contexts, _random(resources, shape)))
        if gap <= TOLERANCE and on_tree(resources.policy):
            gap = sampling_gap(resources, contexts)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return reason(error)
    if math.isnan(gap) or gap <= TOLERANCE:
        return None
    return f"its log-probs differ there by {gap:.2g} nats from those over single texts"


def choose_caching(resources: Resources, depth: Depth) -> Caching:
    """Finds out how the cache of a policy on rows may be used, and sets it.

    A cache that is continued must be as exact as one that is prefilled: a gap that is small because
    the weights are small grows with them. Raises `UserError` if the policy cannot even be sampled
    from without a cache.
    """
    contexts = _contexts(resources, depth)
    continued, prefilled = (
        _gap_or_reason(resources, contexts, how) for how in (Caching.CONTINUED, Caching.PREFILLED)
    )
    chosen = Caching.NONE
    if isinstance(prefilled, float) and prefilled <= TOLERANCE:
        chosen = Caching.PREFILLED
        if isinstance(continued, float) and continued <= SAME * prefilled + ROUNDING:
            chosen = Caching.CONTINUED
    gap = _gap_or_reason(resources, contexts, chosen)
    if isinstance(gap, str) or gap > TOLERANCE:
        what = gap if isinstance(gap, str) else f"log-probs of its tokens are {gap:.2g} nats off"
        who = type(resources.policy).__name__
        raise UserError(
            f"model.path: {who} cannot be sampled from on rows, because {what}; give another model"
        )
    return chosen


def _gap_or_reason(resources: Resources, contexts: Contexts, how: Caching) -> float | str:
    set_caching(resources.policy, how)
    try:
        gap = sampling_gap(resources, contexts)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return reason(error)
    return 0.0 if math.isnan(gap) else gap  # weights that are not finite decide nothing here


@torch.no_grad()
def sampling_gap(resources: Resources, contexts: Contexts) -> float:
    """Returns the largest difference in nats between log-probs of tokens when they are sampled on a
    cache and when they are trained on."""
    length = min(DECODED, contexts.rollout_length)
    short = replace(
        contexts,
        reference=contexts.reference[:, :length],
        reference_mask=contexts.reference_mask[:, :length],
    )
    alone = replace(resources, precision=torch.float32)
    rollouts = HfTree(n=2).build(alone)(short, step=0)
    trained = tree_log_probs(resources.policy, rollouts, train_documents=False).rollouts
    return float((trained - rollouts.log_probs).abs().max())


def _contexts(resources: Resources, depth: Depth) -> Contexts:
    """The middle and the end of a document of the greatest length, and one of two short ones, whose
    rows share a cache."""
    reads = context_length(text_config(resources.policy))
    length = depth.document
    if reads is not None:
        length = max(1, min(length, reads - depth.rollout))
    lengths = [length, short := min(SHORT, length), short]
    tokens = torch.split(_random(resources, (sum(lengths),)), lengths)
    documents = [Document(f"random {i}", text) for i, text in enumerate(tokens)]
    middle, short_middle = -(-length // 2), -(-short // 2)
    anchors = [sorted({middle, length}), [short_middle], [short_middle]]
    return make_contexts(
        documents,
        [torch.tensor(each) for each in anchors],
        rollout_length=depth.rollout,
        stop_at_eos=False,
    ).to(resources.device)


def _random(resources: Resources, shape: tuple[int, ...]) -> torch.Tensor:
    """Random tokens of the vocabulary, none of them special: those may stand for an image."""
    most = min(len(resources.tokenizer), embedded_tokens(resources.policy))
    special = set(resources.tokenizer.all_special_ids)
    ids = torch.tensor([i for i in range(most) if i not in special])
    generator = torch.Generator().manual_seed(0)
    return ids[torch.randint(len(ids), shape, generator=generator)].to(
        resources.device if len(shape) > 1 else "cpu"
    )
