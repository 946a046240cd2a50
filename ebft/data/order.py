"""Which documents each optimizer step sees: a shuffle an epoch, as a pure function of the step."""

from __future__ import annotations

from functools import lru_cache

import torch


class DocumentOrder:
    """The order of `size` documents under a seed. Nothing has to be saved to resume it."""

    def __init__(self, seed: int, size: int) -> None:
        self._seed, self._size = seed, size

    def __call__(self, step: int, count: int) -> list[int]:
        """The indices of step number `step` when each step takes `count` documents.

        Steps run on from one epoch into the next; no document comes twice in an epoch.
        """
        places = range(step * count, (step + 1) * count)
        return [
            _permutation(self._seed, place // self._size, self._size)[place % self._size]
            for place in places
        ]


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, size: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order: list[int] = torch.randperm(size, generator=generator).tolist()
    return order
