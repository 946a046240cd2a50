"""The check that stops a run at the first NaN or infinity and says where it arose."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ebft.errors import NumericalError
from ebft.rollout.records import Contexts
from ebft.training.losses import LogProbs


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


def check_log_probs(log_probs: LogProbs, contexts: Contexts, *, step: int) -> None:
    """Raises `NumericalError` naming the document if any of them is not finite."""
    if log_probs.rollouts is not None:
        check_finite("log-probs of rollouts", log_probs.rollouts, contexts, step=step)
    row = torch.arange(len(contexts.documents))
    check_finite("log-probs of documents", log_probs.documents, contexts, step=step, row=row)


def check_gradients(norm: Float[Tensor, ""], contexts: Contexts, *, step: int) -> None:
    """Raises `NumericalError` naming the step's documents if the gradients' norm is not finite."""
    if not torch.isfinite(norm):
        names = ", ".join(document.name for document in contexts.documents)
        raise NumericalError(f"step {step + 1}: the gradient norm is {norm}, in {names}")
