"""The documents of each optimizer step: one shuffle per epoch, a pure function of the step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import torch

from ebft.rollout.records import Document


class DocumentOrder:
    """The order of `size` documents for a seed. It has no state to save."""

    def __init__(self, seed: int, size: int) -> None:
        self._seed, self._size = seed, size

    def __call__(self, step: int, count: int) -> list[int]:
        """Returns the indices of step number `step` when each step takes `count` documents.

        No document comes twice in an epoch. A step may cross the border of two epochs, and may then
        have a document twice.
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
    """Returns the documents of a step, with a repeated document renamed to "NAME (2)".

    The random numbers of rollouts depend on the name: with the same name, the second document would
    get the same rollouts.
    """
    seen: Counter[str] = Counter()
    named = []
    for document in documents:
        seen[document.name] += 1
        again = seen[document.name]
        name = document.name if again == 1 else f"{document.name} ({again})"
        named.append(replace(document, name=name))
    return named
