"""A small set of combinations in which every pair of choices occurs together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, product

Choice = dict[str, str]


def cover_pairs(choices: Mapping[str, Sequence[str]]) -> list[Choice]:
    """Greedily: each combination covers as many pairs of choices as any that is left."""
    names = list(choices)
    everything = [dict(zip(names, values, strict=True)) for values in product(*choices.values())]
    missing = set().union(*(pairs(one) for one in everything))
    chosen: list[Choice] = []
    while missing:
        best = max(everything, key=lambda one: len(pairs(one) & missing))
        chosen.append(best)
        missing -= pairs(best)
    return chosen


def pairs(choice: Choice) -> set[frozenset[tuple[str, str]]]:
    """Every two choices of a combination."""
    return {frozenset(two) for two in combinations(choice.items(), 2)}
