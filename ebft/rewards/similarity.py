"""Terms of a reward that is 2k(rollout, reference) − 2k(rollout, rollout'), for any kernel k."""

from __future__ import annotations

from ebft.kernels import Kernel, to_references
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
