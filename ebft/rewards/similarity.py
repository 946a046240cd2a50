"""Terms of a reward that is 2k(rollout, reference) − 2k(rollout, rollout'), for any kernel k."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ebft.kernels import Kernel
from ebft.rollout.records import Features, Terms


def kernel_terms(
    features: Features,
    to_reference: Kernel,
    to_rollout: Kernel,
    *,
    alignment: float,
    diversity: float,
) -> Terms:
    """u_j = 2 α_a mean_m k(φ_j, φ_y,m), k_jj' = −2 α_d k'(φ_j, φ_j')."""
    pairwise = -2 * diversity * to_rollout(features.samples, features.samples)
    pairwise.diagonal(dim1=1, dim2=2).zero_()
    return Terms(2 * alignment * to_references(features, to_reference), pairwise)


def to_references(features: Features, kernel: Kernel) -> Float[Tensor, "P n"]:
    """k of each rollout and its references, averaged over the references."""
    if features.paired:
        each = kernel(features.samples[:, :, None], features.references[:, :, None])
        return each[..., 0, 0]
    return kernel(features.samples, features.references).mean(-1)
