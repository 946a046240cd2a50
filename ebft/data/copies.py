"""Finds exact and near copies of texts, so that no text is in two splits.

Two texts are near copies if they share most lines of the shorter one. That catches a file that was
moved, got another header, or was edited in places. It does not catch renamed variables or another
formatter's line breaks.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from ebft.data.split import mark_of
from ebft.parts.splits import Example

SHARED = 0.8
"""Share of the shorter text's lines that a near copy has too."""
CHARACTERS = 8
"""A line must have this many to count; "else:" and "return" are in every text."""
LINES = 8
"""A text with fewer such lines is compared as a whole only."""


def without_near_copies(examples: Sequence[Example], of: Iterable[Example]) -> list[Example]:
    """Returns the examples that are no exact or near copy of any in `of`.

    They may be copies of each other."""
    exact: set[int] = set()
    sizes: list[int] = []
    places: defaultdict[str, list[int]] = defaultdict(list)
    for number, other in enumerate(of):
        exact.add(mark_of(other))
        lines = telling_lines(other)
        sizes.append(len(lines))
        for line in lines:
            places[line].append(number)

    def is_copy(example: Example) -> bool:
        if mark_of(example) in exact:
            return True
        lines = telling_lines(example)
        shared = Counter(number for line in lines for number in places.get(line, ()))
        shorter = {number: min(len(lines), sizes[number]) for number in shared}
        return any(
            size >= LINES and shared[number] >= SHARED * size for number, size in shorter.items()
        )

    return [example for example in examples if not is_copy(example)]


def telling_lines(example: Example) -> set[str]:
    """Returns the distinctive lines of a text, with white space normalised."""
    lines = f"{example.prompt}\n{example.completion}".splitlines()
    return {text for line in lines if len(text := " ".join(line.split())) >= CHARACTERS}
