"""Arithmetic sampling (Vilnis et al. 2023, arXiv 2210.15458) in two halves, as it was tried.

A rollout is the sequence whose interval of the arithmetic code contains a point in [0, 1). Half of
a context's rollouts have points at equal distances, from one uniform shift, the other half from
another. Each point is uniform, so each rollout has the policy's distribution; those of one half
are spread out and not independent, and the halves are independent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor


class Arithmetic:
    """Replaces a sampler's draws: the points are made at the first token, then refined."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._points: Tensor | None = None

    @contextmanager
    def replaces(self, module: ModuleType, name: str) -> Iterator[None]:
        original = getattr(module, name)
        setattr(module, name, self)
        try:
            yield
        finally:
            setattr(module, name, original)

    def __call__(
        self, logits: Tensor, uniform: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        p = (logits.double() / temperature).softmax(-1)
        until = p.cumsum(-1)
        until = until / until[:, -1:]
        if self._points is None:
            half = self._n // 2
            shift = uniform[:, [0, half]].double()
            points = (shift[..., None] + torch.arange(half) / half) % 1
            points = points.flatten(1)
        else:
            points = self._points.view(uniform.shape)
        tokens = torch.searchsorted(until, points, right=True).clamp(max=p.shape[1] - 1)
        chosen = p.gather(1, tokens)
        rest = (points - (until.gather(1, tokens) - chosen)) / chosen
        # float64 has 53 bits: digits that a likely code does not have are drawn anew.
        self._points = (rest + 2**-40 * uniform).clamp(0, 1 - 2**-53).flatten()
        return tokens, chosen.log().to(logits.dtype)
