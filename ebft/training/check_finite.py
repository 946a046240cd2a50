"""The check that stops a run at the first NaN or infinity and says where it arose."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from ebft.errors import NumericalError
from ebft.rollout.records import Contexts


def check_finite(
    what: str,
    values: Tensor,
    contexts: Contexts,
    *,
    step: int,
    row: Int[Tensor, " N"] | None = None,
) -> None:
    """Raises `NumericalError` naming the step and the first document with a bad value.

    The first dimension of `values` is contexts, or an equal number of rows for each of them, or
    whatever `row` gives the document of.
    """
    bad = ~torch.isfinite(values.detach()).flatten(1).all(1)
    if bad.any():
        if row is None:
            row = contexts.row.repeat_interleave(len(values) // len(contexts))
        rows = row.cpu()[bad.cpu()].tolist()
        names = dict.fromkeys(contexts.documents[i].name for i in rows)
        listed = ", ".join(list(names)[:3]) + (", …" if len(names) > 3 else "")
        raise NumericalError(
            f"step {step + 1}: {what} have NaN or infinite values, in document {listed}; "
            "the run stops here and nothing has been overwritten"
        )
