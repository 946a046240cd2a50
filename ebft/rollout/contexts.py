"""Makes `Contexts` from documents and anchors, and `Rollouts` from sampled tokens.

`not_finite_in` names the documents whose values are NaN or infinite, for messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float, Int

from ebft.lazy import Tensor, torch
from ebft.rollout.records import Contexts, Document, Rollouts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST = 3
"""Names in a message, at most."""


def make_contexts(
    documents: Sequence[Document],
    anchors: Sequence[Int[Tensor, " _"]],
    *,
    rollout_length: int,
    stop_at_eos: bool,
    ends: Sequence[Int[Tensor, " _"]] | None = None,
) -> Contexts:
    """Returns the contexts of `documents`; `anchors[i]` are those of document i, ascending.

    `ends[i]` are the ends of their references; by default a reference ends with its document.
    Padding is token 0; nothing attends to it and no loss is taken on it.
    """
    assert documents, "a step has at least one document"
    tokens = torch.nn.utils.rnn.pad_sequence(
        [document.tokens for document in documents], batch_first=True
    )
    lengths = torch.tensor([document.tokens.numel() for document in documents])
    row = torch.repeat_interleave(torch.tensor([a.numel() for a in anchors]))
    anchor = torch.cat(list(anchors))
    position = anchor[:, None] + torch.arange(rollout_length)
    end = lengths[row] if ends is None else torch.cat(list(ends))
    within = position < end[:, None]
    reference = tokens[row[:, None], position.clamp(max=tokens.shape[1] - 1)]
    return Contexts(
        documents=tuple(documents),
        tokens=tokens,
        lengths=lengths,
        row=row,
        anchor=anchor,
        reference=reference.where(within, 0),
        reference_mask=within,
        stop_at_eos=stop_at_eos,
    )


def make_rollouts(
    contexts: Contexts,
    tokens: Int[Tensor, "P n G"],
    log_probs: Float[Tensor, "P n G"],
    *,
    tokenizer: PreTrainedTokenizerBase,
    temperature: float,
) -> Rollouts:
    """Returns rollouts of the sampled tokens and their log-probs.

    With `contexts.stop_at_eos`, a rollout ends with its first end-of-sequence token, which belongs
    to it. Tokens and log-probs after it are set to 0.
    """
    mask = torch.ones_like(tokens, dtype=torch.bool)
    if contexts.stop_at_eos:
        ends = tokens == tokenizer.eos_token_id
        mask = ends.cumsum(-1) - ends.long() == 0
        tokens, log_probs = tokens.where(mask, 0), log_probs.where(mask, 0)
    return Rollouts(contexts, tokens, log_probs, mask, temperature)


def not_finite_in(
    values: Tensor, contexts: Contexts, *, row: Int[Tensor, " N"] | None = None
) -> str | None:
    """Returns the names of the first documents with a bad value; None if all are finite.

    The first dimension of `values` is contexts, or an equal number of rows for each of them. If
    `row` is given, it has the document's number for each row of `values`.
    """
    bad = ~values.detach().isfinite().flatten(1).all(1)
    if not bad.any():
        return None
    if row is None:
        row = contexts.row.repeat_interleave(len(values) // len(contexts))
    rows = row.cpu()[bad.cpu()].tolist()
    names = dict.fromkeys(contexts.documents[i].name for i in rows)
    return ", ".join(list(names)[:MOST]) + (", …" if len(names) > MOST else "")
