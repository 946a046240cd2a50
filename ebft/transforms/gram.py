"""Inverse square roots of Gram matrices, for whitening by a context's own rollouts."""

from __future__ import annotations

from jaxtyping import Float

from ebft.errors import NumericalError
from ebft.lazy import Tensor, torch

TOLERANCE = 1e-5
"""Singular values below this fraction of the largest count as zero (the authors' value)."""


def eigh(symmetric: Float[Tensor, "*P n n"], of: str) -> tuple[Tensor, Tensor]:
    """Returns eigenvalues, ascending, and eigenvectors. Raises `NumericalError` on failure."""
    try:
        values, vectors = torch.linalg.eigh(symmetric)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise NumericalError(f"the eigenvalues of {of} cannot be computed: {error}") from error
    # LAPACK may return NaN without an error.
    if not (values.isfinite().all() and vectors.isfinite().all()):
        raise NumericalError(f"the eigenvalues of {of} are not finite")
    return values, vectors


def gram_roots(
    samples: Float[Tensor, "P n D"], *, tolerance: float = TOLERANCE
) -> tuple[Float[Tensor, "P n"], Float[Tensor, "P n n"]]:
    """Returns 1/S and U of XXᵀ = U S² Uᵀ for each context's n × D features X, in float64.

    1/S is 0 where S is below `tolerance` times the largest, as in a pseudo-inverse.
    """
    # float64: the Gram matrix squares the condition number of X.
    x = samples.double()
    values, U = eigh(x @ x.mT, "the Gram matrix of a context's rollouts")
    S = values.clamp(min=0).sqrt()
    kept = tolerance * S.amax(-1, keepdim=True) < S
    return torch.where(kept, 1 / S.where(kept, 1), 0), U
