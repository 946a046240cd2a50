"""The feature-matching loss and other kernel scores of rollouts, estimated without bias."""

from __future__ import annotations

from jaxtyping import Float

from ebft.lazy import Tensor
from ebft.rollout.records import Features
from ebft.scoring.kernels import Kernel, linear, to_references


def unbiased_cfm(features: Features) -> Float[Tensor, " P"]:
    """An unbiased estimate of L_CFM = E_y ‖E_ŷ φ(ŷ) − φ(y)‖² for each context, n ≥ 2.

    1/(n(n−1)) Σ_{i≠j} φ_i·φ_j − 2/n Σ_i φ_i·φ_y + ‖φ_y‖², averaged over the m references. The
    squared distance of the sample mean would be too large by tr Cov(φ(ŷ))/n, since it includes
    i = j. An estimate may be negative. With paired references each rollout is compared with its
    own, as in its reward; this estimates the loss of such a reward, which is not L_CFM.

    Here the sample mean equals φ_y, but the estimate is not 0:

    >>> import torch
    >>> samples = torch.tensor([[[0.0, 1.0], [2.0, 1.0]]])
    >>> unbiased_cfm(Features(samples, references=torch.tensor([[[1.0, 1.0]]])))
    tensor([-1.])
    """
    samples, references = features.samples, features.references
    n = samples.shape[1]
    if n < 2:
        raise ValueError(f"an unbiased estimate of L_CFM needs n >= 2 rollouts, not {n}")
    pairs = samples.sum(1).square().sum(-1) - samples.square().sum((1, 2))
    alignment = to_references(features, linear).mean(1)
    return pairs / (n * (n - 1)) - 2 * alignment + references.square().sum(-1).mean(1)


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
