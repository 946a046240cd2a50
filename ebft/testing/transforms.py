"""`check_transform`: are its features valid, and independent unless it claims a biased gradient?"""

from __future__ import annotations

from dataclasses import replace

import torch

from ebft.parts.interfaces import Transform
from ebft.parts.part import Part, Resources
from ebft.parts.stateful import Stateful
from ebft.rollout.records import Features
from ebft.testing.common import (
    Unchanged,
    check_options,
    check_tensor,
    close,
    promises_independence,
    require,
)
from ebft.testing.tiny import tiny_resources


def check_transform(
    part: Part, resources: Resources | None = None, *, tolerance: float = 1e-6
) -> None:
    """Checks a transform on random features of several widths.

    It checks shapes, dtype, finiteness and no gradients; the same result when built again; a state
    that can be saved and loaded; and, unless it claims a biased gradient, that features of a
    rollout do not depend on other rollouts. Raises `AssertionError`.
    """
    check_options(part)
    resources = tiny_resources() if resources is None else resources
    for n, D in ((3, 8), (1, 8), (4, 2)):
        for dtype in (torch.float32, torch.float64):
            features = random_features(n, D, dtype, device=resources.device)
            transform = part.build(resources)
            require(part, isinstance(transform, Transform), "build() returns something to call")
            unchanged = Unchanged(features)
            result = transform(features)
            require(part, bool(unchanged), "it does not modify its input")
            _check_shapes(part, result, features)
            again = part.build(resources)(features)
            require(part, _same(again, result, tolerance), "built again, it gives the same")
            other = random_features(n, D, dtype, seed=1, device=resources.device)
            _check_state(part, transform, other, resources, tolerance)
    _check_rollouts(part, resources, tolerance)


def random_features(
    n: int, D: int, dtype: torch.dtype = torch.float64, *, device: torch.device, seed: int = 0
) -> Features:
    """Returns features of n rollouts and one reference for each of 5 contexts, with two layers."""
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(5, n, D, generator=generator, dtype=torch.float64)
    references = torch.randn(5, 1, D, generator=generator, dtype=torch.float64)
    return Features(samples.to(device, dtype), references.to(device, dtype), layers=2)


def _check_shapes(part: Part, result: Features, features: Features) -> None:
    require(part, isinstance(result, Features), "it returns ebft.Features")
    P, n, _ = features.samples.shape
    D, m = result.samples.shape[-1], result.references.shape[1]
    check_tensor(part, "samples", result.samples, (P, n, D))
    check_tensor(part, "references", result.references, (P, m, D))
    dtypes = {result.samples.dtype, result.references.dtype}
    require(part, dtypes == {features.samples.dtype}, "the dtype is that of the input")
    require(part, D % result.layers == 0, f"D = {D} is a multiple of layers = {result.layers}")
    require(part, not result.paired or m == n, "paired features have m = n references")


def _check_state(
    part: Part, transform: Transform, features: Features, resources: Resources, tolerance: float
) -> None:
    if not isinstance(transform, Stateful):
        return
    resumed = part.build(resources)
    resumed.load_state_dict(transform.state_dict())
    expected = transform(features)
    require(
        part,
        _same(resumed(features), expected, tolerance),
        "with the state loaded, it continues as the one that saved it",
    )


def _check_rollouts(part: Part, resources: Resources, tolerance: float) -> None:
    features = random_features(4, 6, device=resources.device)
    result = part.build(resources)(features)
    flipped = part.build(resources)(replace(features, samples=features.samples.flip(1)))
    require(
        part,
        close(flipped.samples, result.samples.flip(1), tolerance),
        "rollouts in another order have their features in that order",
    )
    if not promises_independence(part):
        return
    samples = features.samples.clone()
    samples[:, 0] += 1
    other = part.build(resources)(replace(features, samples=samples))
    require(
        part,
        close(other.samples[:, 1:], result.samples[:, 1:], tolerance)
        and close(other.references, result.references, tolerance),
        "features of a rollout do not depend on the other rollouts "
        "(or claim() says that the gradient is biased)",
    )


def _same(a: Features, b: Features, tolerance: float) -> bool:
    return close(a.samples, b.samples, tolerance) and close(a.references, b.references, tolerance)
