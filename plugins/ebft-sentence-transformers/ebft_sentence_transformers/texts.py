"""Rollouts and references as texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ebft.models.tokenizer import begins_with, text_of, without_end, without_start
from ebft.rollout.records import Contexts, Rollouts

if TYPE_CHECKING:
    from jaxtyping import Bool, Int
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

Text = Literal["completion", "context_and_completion"]


def rollout_texts(rollouts: Rollouts, tokenizer: PreTrainedTokenizerBase, text: Text) -> list[str]:
    """Returns P·n texts; the n rollouts of a context are adjacent."""
    contexts = rollouts.contexts
    return _texts(contexts, rollouts.tokens, rollouts.mask, tokenizer, text)


def reference_texts(
    contexts: Contexts, tokenizer: PreTrainedTokenizerBase, text: Text
) -> list[str]:
    """Returns P texts, one reference for each context."""
    tokens, mask = contexts.reference[:, None], contexts.reference_mask[:, None]
    return _texts(contexts, tokens, mask, tokenizer, text)


def _texts(
    contexts: Contexts,
    tokens: Int[Tensor, "P n G"],
    mask: Bool[Tensor, "P n G"],
    tokenizer: PreTrainedTokenizerBase,
    text: Text,
) -> list[str]:
    rows, anchors = contexts.row.tolist(), contexts.anchor.tolist()
    documents = contexts.tokens.tolist()
    lengths = mask.sum(-1).tolist()
    with_context = text == "context_and_completion"
    start = begins_with(tokenizer) if with_context else []
    texts = []
    for row, anchor, group, kept in zip(rows, anchors, tokens.tolist(), lengths, strict=True):
        before = without_start(documents[row][:anchor], start) if with_context else []
        for one, length in zip(group, kept, strict=True):
            after = one[:length]
            if contexts.stop_at_eos:
                after = without_end(after, tokenizer)
            # Decoded as one sequence: the bytes of a character may be on both sides of the anchor.
            texts.append(text_of([*before, *after], tokenizer))
    return texts
