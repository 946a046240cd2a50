"""Which documents each optimizer step sees: a shuffle an epoch, as a pure function of the step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import torch

from ebft.rollout.records import Document


class DocumentOrder:
    """The order of `size` documents under a seed. Nothing has to be saved to resume it."""

    def __init__(self, seed: int, size: int) -> None:
        self._seed, self._size = seed, size

    def __call__(self, step: int, count: int) -> list[int]:
        """The indices of step number `step` when each step takes `count` documents.

        Steps run on from one epoch into the next; no document comes twice in an epoch, but one may
        in a step that two epochs meet in.
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


def told_apart(documents: Sequence[Document]) -> list[Document]:
    """The documents of a step; one that has come in it before has another name, "NAME (2)".

    Rollouts are drawn by name: under the same one they would be the same rollouts again, and no
    second sample.
    """
    seen: Counter[str] = Counter()
    named = []
    for document in documents:
        seen[document.name] += 1
        again = seen[document.name]
        name = document.name if again == 1 else f"{document.name} ({again})"
        named.append(replace(document, name=name))
    return named
