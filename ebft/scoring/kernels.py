"""Kernels k(x, y) between features, for rewards and reported scores.

Each takes x [..., a, D] and y [..., b, D] and returns [..., a, b]. A kernel score (Gneiting &
Raftery 2007, section 5) is proper for every kernel here, and strictly so, in the distribution of
the features, for the characteristic ones: RBF, multi-scale RBF, Laplace and energy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxtyping import Float

from ebft.lazy import Tensor, torch
from ebft.rollout.records import Features

Kernel = Callable[[Tensor, Tensor], Tensor]

SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Factors of the bandwidth that the multi-scale RBF kernel averages over."""


def linear(x: Float[Tensor, "*P a D"], y: Float[Tensor, "*P b D"]) -> Float[Tensor, "*P a b"]:
    """x·y: the kernel score is the feature-matching loss."""
    return x @ y.mT


def cosine(
    x: Float[Tensor, "*P a D"], y: Float[Tensor, "*P b D"], *, blocks: int = 1
) -> Float[Tensor, "*P a b"]:
    """x·y / (‖x‖ ‖y‖), 0 if either is zero; the mean over `blocks` equal blocks of D."""
    x, y = (
        torch.nn.functional.normalize(z.reshape(*z.shape[:-1], blocks, -1), dim=-1).flatten(-2)
        for z in (x, y)
    )
    return x @ y.mT / blocks


def rbf(
    x: Float[Tensor, "*P a D"], y: Float[Tensor, "*P b D"], *, bandwidth: float
) -> Float[Tensor, "*P a b"]:
    """exp(−‖x − y‖² / 2h²)."""
    return torch.exp(distance(x, y).square() / (-2 * bandwidth**2))


def multi_rbf(
    x: Float[Tensor, "*P a D"],
    y: Float[Tensor, "*P b D"],
    *,
    bandwidth: float,
    scales: Sequence[float] = SCALES,
) -> Float[Tensor, "*P a b"]:
    """The mean of RBF kernels with bandwidths h·scale."""
    squared = distance(x, y).square()
    return torch.stack(
        [torch.exp(squared / (-2 * (scale * bandwidth) ** 2)) for scale in scales]
    ).mean(0)


def laplace(
    x: Float[Tensor, "*P a D"], y: Float[Tensor, "*P b D"], *, bandwidth: float
) -> Float[Tensor, "*P a b"]:
    """exp(−‖x − y‖ / h)."""
    return torch.exp(-distance(x, y) / bandwidth)


WITH_BANDWIDTH = {"rbf": rbf, "multi_rbf": multi_rbf, "laplace": laplace}
"""The kernels with a bandwidth, by name."""


def energy(x: Float[Tensor, "*P a D"], y: Float[Tensor, "*P b D"]) -> Float[Tensor, "*P a b"]:
    """−‖x − y‖: the kernel score is the energy distance (Székely & Rizzo 2013)."""
    return -distance(x, y)


def polynomial(
    x: Float[Tensor, "*P a D"], y: Float[Tensor, "*P b D"], *, degree: int, offset: float
) -> Float[Tensor, "*P a b"]:
    """(x·y + offset)^degree: matches moments up to the degree."""
    return (x @ y.mT + offset) ** degree


def distance(x: Float[Tensor, "*P a D"], y: Float[Tensor, "*P b D"]) -> Float[Tensor, "*P a b"]:
    """‖x − y‖."""
    # Differences, not ‖x‖² + ‖y‖² − 2x·y: equal rollouts must be at distance 0 exactly.
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def to_references(features: Features, kernel: Kernel) -> Float[Tensor, "P n"]:
    """Returns k of each rollout and its references, averaged over the references."""
    if features.paired:
        each = kernel(features.samples[:, :, None], features.references[:, :, None])
        return each[..., 0, 0]
    return kernel(features.samples, features.references).mean(-1)


def median_distance(points: Float[Tensor, "N D"], *, most: int = 512) -> float:
    """Returns the median distance of pairs of points, over at most `most` evenly spaced points.

    Raises `ValueError` if it is not positive, because it cannot be a bandwidth.
    """
    if len(points) > most:
        points = points[torch.linspace(0, len(points) - 1, most, device=points.device).long()]
    median = float(torch.pdist(points).median()) if len(points) > 1 else 0.0
    if not median > 0:
        raise ValueError(
            f"the median distance of {len(points)} references is {median}, which is not a "
            "bandwidth; give `bandwidth` a number"
        )
    return median
