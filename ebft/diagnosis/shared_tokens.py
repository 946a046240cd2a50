"""How many tokens of n rollouts have prefixes of their own: those that are computed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import comb, log2

import torch

from ebft.rollout.merge import distinct
from ebft.rollout.records import Rollouts


@dataclass(frozen=True, slots=True)
class SharedTokens:
    """`counts[k]` prefixes are those of k of the N rollouts of a context; of all contexts together.

    A prefix that k of N rollouts have is one of n of them with the probability
    1 − C(N−k, n) / C(N, n), so the expected number for n ≤ N is known without bias.
    """

    counts: tuple[int, ...]

    @classmethod
    def of(cls, steps: Iterable[Rollouts]) -> SharedTokens:
        """Counts the prefixes of rollouts, of which each context has equally many."""
        total: torch.Tensor | None = None
        for rollouts in steps:
            each = distinct(rollouts.tokens, rollouts.within).number[rollouts.within]
            counts = each.bincount().bincount(minlength=rollouts.tokens.shape[1] + 1).cpu()
            total = counts if total is None else total + counts
        assert total is not None, "there is a step"
        return cls(tuple(total.tolist()))

    def share(self, n: int) -> float:
        """The share of the tokens of n rollouts that have prefixes of their own.

        Above N it is extrapolated: each doubling multiplies it by what the last one did.
        """
        N = len(self.counts) - 1
        if n > N:
            doubling = self.share(N) / self.share(N // 2) if N > 1 else 1.0
            return float(self.share(N) * doubling ** log2(n / N))
        found = sum(
            count * (1 - comb(N - k, n) / comb(N, n)) for k, count in enumerate(self.counts)
        )
        tokens = sum(k * count for k, count in enumerate(self.counts)) * n / N
        return found / tokens if tokens else 1.0
