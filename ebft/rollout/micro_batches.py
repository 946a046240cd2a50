"""Divides a step's documents into micro-batches with a budget of tokens, so that memory does not
depend on the documents' lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ebft.distributed.processes import ONE_PROCESS, Processes
from ebft.rollout.records import Contexts

ENOUGH = 128
"""Branches that decode together: as many rows of a product are nearly as fast as any more."""
TOGETHER = 4
"""Micro-batches that decode together, at most: the keys and values of all of them are kept."""


@dataclass(slots=True)
class MicroBatch:
    """How many `documents` of the greatest length go through a network together.

    It changes memory, not results. All parts of a run share one instance, which is halved when
    memory is short.
    """

    documents: int

    def halve(self) -> None:
        assert self.documents > 1
        self.documents //= 2


def divide(
    contexts: Contexts, *, n: int, budget: int, processes: Processes = ONE_PROCESS
) -> Contexts:
    """Returns the same contexts in micro-batches of whole documents.

    The trees of a micro-batch have at most `budget` tokens; a document with more is a micro-batch
    by itself. `n` is the number of rollouts of a context. Processes run in lockstep, so all of them
    get as many micro-batches as the one that needs most.
    """
    sizes = tree_tokens(contexts, n)
    counts = pack(sizes, budget)
    most = int(processes.gather(torch.tensor([len(counts)])).max())
    return contexts.divided(spread(counts, most))


def joined(contexts: Contexts, *, n: int) -> Contexts:
    """Returns the same contexts in the micro-batches that decode together: several of those they
    are in, because no activations are kept while n rollouts of each are sampled."""
    counts = contexts.micro_batches or (len(contexts.documents),)
    size = decoded_together(len(contexts) * n // len(counts))
    return contexts.divided([sum(counts[i : i + size]) for i in range(0, len(counts), size)])


def decoded_together(branches: int) -> int:
    """Returns how many micro-batches of so many branches decode together."""
    return max(1, min(TOGETHER, ENOUGH // max(1, branches)))


def tree_tokens(contexts: Contexts, n: int) -> list[int]:
    """Returns the tokens of each document's tree: its own and those of its rollouts."""
    anchors = torch.bincount(contexts.row, minlength=len(contexts.documents))
    total: list[int] = (contexts.lengths + anchors * n * contexts.rollout_length).tolist()
    return total


def pack(sizes: Sequence[int], budget: int) -> list[int]:
    """Groups consecutive sizes so that each group adds up to at most `budget`; returns how many
    sizes each group has. A size above the budget is a group by itself.

    >>> pack([3, 3, 5, 9, 1], budget=8)
    [2, 1, 1, 1]
    """
    counts: list[int] = []
    room = 0
    for size in sizes:
        if counts and size <= room:
            counts[-1] += 1
        else:
            counts.append(1)
            room = budget
        room -= size
    return counts


def spread(counts: Sequence[int], parts: int) -> list[int]:
    """Halves the largest groups until there are `parts` of them; returns how many documents each
    group has.

    >>> spread([4, 1], parts=3)
    [2, 2, 1]
    """
    counts = list(counts)
    assert len(counts) <= parts <= sum(counts), (counts, parts)
    while len(counts) < parts:
        largest = counts.index(max(counts))
        half = counts[largest] // 2
        counts[largest : largest + 1] = [counts[largest] - half, half]
    return counts
