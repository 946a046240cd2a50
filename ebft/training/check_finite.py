"""The check that stops a run at the first NaN or infinity and says where it arose."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ebft.errors import NumericalError
from ebft.rollout.not_finite import not_finite_in
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

    `row` is as for `rollout.not_finite`.
    """
    listed = not_finite_in(values, contexts, row=row)
    if listed is not None:
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
