"""Divides texts into train and held-out, so that none is in both."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from ebft.errors import UserError
from ebft.interfaces import Example, Splits


def split(examples: Sequence[Example], held_out: float, *, key: str) -> Splits:
    """Holds out a fraction of the examples, whole, and at least one.

    An example's place depends on a hash of its text, not on its name or on the order, and texts
    that differ in white space only count as one (the first is kept): a copy of a held-out text
    cannot be in train. `key` is the recipe key that errors name. Raises `UserError` for fewer than
    two different texts.
    """
    distinct: dict[bytes, Example] = {}
    for example in examples:
        distinct.setdefault(fingerprint(example), example)
    if len(distinct) < 2:
        raise UserError(
            f"{key}: {len(distinct)} different texts; at least 2 are needed, to hold one out"
        )
    count = min(max(round(held_out * len(distinct)), 1), len(distinct) - 1)
    chosen = set(sorted(distinct)[:count])
    train = [example for mark, example in distinct.items() if mark not in chosen]
    return Splits(train=train, held_out=[distinct[mark] for mark in sorted(chosen)])


def without_copies(examples: Sequence[Example], of: Sequence[Example]) -> list[Example]:
    """The examples whose text is not among `of` (nor a second time among themselves)."""
    seen = {fingerprint(example) for example in of}
    kept = []
    for example in examples:
        if (mark := fingerprint(example)) not in seen:
            seen.add(mark)
            kept.append(example)
    return kept


def fingerprint(example: Example) -> bytes:
    """A hash of the example's text, the same for texts that differ in white space only."""
    words = " ".join(f"{example.prompt} {example.completion}".split())
    return blake2b(words.encode(), digest_size=16).digest()
