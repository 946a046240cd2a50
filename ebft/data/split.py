"""Divides texts into train and held-out, so that none is in both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    chosen = choose(distinct, held_out, key=key)
    train = [example for mark, example in distinct.items() if mark not in chosen]
    return Splits(train=train, held_out=[distinct[mark] for mark in sorted(chosen)])


def choose(marks: Iterable[bytes], held_out: float, *, key: str) -> set[bytes]:
    """The fraction of different hashes that is held out: the smallest, at least one, not all.

    Raises `UserError` naming the recipe's `key` for fewer than two.
    """
    distinct = sorted(set(marks))
    if len(distinct) < 2:
        raise UserError(
            f"{key}: {len(distinct)} different texts; at least 2 are needed, to hold one out"
        )
    return set(distinct[: min(max(round(held_out * len(distinct)), 1), len(distinct) - 1)])


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
    return fingerprint_text(f"{example.prompt} {example.completion}")


def fingerprint_text(text: str) -> bytes:
    """A hash of the text's words."""
    return blake2b(" ".join(text.split()).encode(), digest_size=16).digest()
