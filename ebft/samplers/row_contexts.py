"""The contexts of a model that computes rows, each read to its end and copied n times."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from jaxtyping import Float, Int

from ebft.lazy import Tensor, torch
from ebft.rollout.records import Contexts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ebft.models.row_cache import Decoded


def read_contexts(
    model: PreTrainedModel, contexts: Contexts
) -> Iterator[tuple[Int[Tensor, " p"], Decoded]]:
    """Yields the contexts of each anchor: their places in the P dimension, and their rows.

    Documents are read from anchor to anchor, all of them together, if the architecture's cache
    allows it; otherwise each context is read from its start.
    """
    from ebft.models.row_cache import Caching, caching, nothing_read

    device = contexts.tokens.device
    active = torch.arange(len(contexts.documents), device=device)
    rows = nothing_read(model, len(active))
    last = torch.zeros_like(contexts.lengths).scatter_reduce(
        0, contexts.row, contexts.anchor, "amax"
    )
    before = 0
    for anchor in sorted(set(contexts.anchor.tolist())):
        place = (contexts.anchor == anchor).nonzero()[:, 0]
        document = contexts.row[place]
        if caching(model) is not Caching.CONTINUED:
            rows = nothing_read(model, len(place)).read(contexts.tokens[document, :anchor])
            yield place, rows
            continue
        if (ended := last[active] < anchor).any():
            left = (~ended).nonzero()[:, 0]
            active, rows = active[left], rows.select(left)
        rows = rows.read(contexts.tokens[active, before:anchor])
        before = anchor
        yield place, rows.select(torch.searchsorted(active, document))


class RowReader:
    """Reads branches token by token."""

    def __init__(self, branches: Decoded) -> None:
        self._branches = branches

    def __call__(
        self, tokens: Int[Tensor, " N"], _number: int, _merged: object
    ) -> Float[Tensor, "N d"]:
        """Reads the next token of each branch; returns the hidden states that predict one more."""
        self._branches = self._branches.read(tokens[:, None])
        return self._branches.newest
