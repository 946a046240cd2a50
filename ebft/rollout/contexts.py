"""From documents and their anchors to `Contexts`: padding and references, for any plan."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ebft.rollout.records import Contexts, Document


def make_contexts(
    documents: Sequence[Document],
    anchors: Sequence[Int[Tensor, " _"]],
    *,
    rollout_length: int,
    stop_at_eos: bool,
) -> Contexts:
    """The contexts of `documents` at `anchors[i]`, ascending, of document i.

    Padding is token 0; nothing attends to it and no loss is taken on it.
    """
    assert documents, "a step has at least one document"
    tokens = pad_sequence([document.tokens for document in documents], batch_first=True)
    lengths = torch.tensor([document.tokens.numel() for document in documents])
    row = torch.repeat_interleave(torch.tensor([a.numel() for a in anchors]))
    anchor = torch.cat(list(anchors))
    position = anchor[:, None] + torch.arange(rollout_length)
    within = position < lengths[row, None]
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
