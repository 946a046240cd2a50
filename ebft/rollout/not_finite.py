"""Finds the documents in which values are NaN or infinite, for messages."""

from __future__ import annotations

from jaxtyping import Int
from torch import Tensor

from ebft.rollout.records import Contexts

MOST = 3
"""Names in a message, at most."""


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
