"""Kernel scores of rollouts against references, estimated without bias."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ebft.rollout.records import Features
from ebft.scoring.kernels import Kernel, to_references


def unbiased_kernel_score(features: Features, kernel: Kernel) -> Float[Tensor, " P"]:
    """Estimates E k(ŷ, ŷ') − 2 E k(ŷ, y) + k(y, y) for each context, n ≥ 2; lower is better.

    Averaged over data this is MMD²_k between rollouts and ground truth plus a constant that does
    not depend on the policy. With `ebft.scoring.kernels.linear` it is `unbiased_cfm`; with
    `energy`, for which k(y, y) = 0, it is the energy score 2 E‖φ(ŷ) − φ(y)‖ − E‖φ(ŷ) − φ(ŷ')‖
    (Gneiting & Raftery 2007).
    """
    samples, references = features.samples, features.references
    n = samples.shape[1]
    if n < 2:
        raise ValueError(f"an unbiased kernel score needs n >= 2 rollouts, not {n}")
    between = kernel(samples, samples)
    pairs = between.sum((1, 2)) - between.diagonal(dim1=1, dim2=2).sum(1)
    alignment = to_references(features, kernel).mean(1)
    own = kernel(references, references).diagonal(dim1=1, dim2=2).mean(1)
    return pairs / (n * (n - 1)) - 2 * alignment + own
