"""Splits texts into train and held-out, so that no text is in both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b

import numpy as np
from jaxtyping import UInt64

from ebft.console import Bar
from ebft.data.rows import pick
from ebft.errors import UserError
from ebft.parts.splits import Example, Splits

BATCH = 1000
Marks = UInt64[np.ndarray, " _"]


def split(examples: Sequence[Example], held_out: float, *, key: str) -> Splits:
    """Holds out a fraction of the prompts with all their completions, at least one prompt.

    If there are no prompts, or only one prompt, it holds out a fraction of the texts. The split
    depends on a hash of the prompt or text, not on names or order. Texts that differ only in white
    space count as one, and the first is kept, so a held-out text cannot be in train. `key` is the
    recipe key that errors name. Raises `UserError` for fewer than two different texts.
    """
    # In the order of the marks, with the first place of each.
    marks, places = np.unique(marks_of(examples), return_index=True)
    groups = marks_of(pick(examples, places), of_prompts=True)
    if len(np.unique(groups)) < 2:
        groups = marks
    apart = np.unique(groups)
    count = held_out_count(len(apart), held_out, key=key)
    is_held_out = np.isin(groups, apart[:count])
    return Splits(
        train=pick(examples, np.sort(places[~is_held_out])),
        held_out=pick(examples, places[is_held_out]),
    )


def choose(marks: Iterable[int], held_out: float, *, key: str) -> set[int]:
    """Returns the marks to hold out: a fraction of the different marks."""
    distinct = sorted(set(marks))
    return set(distinct[: held_out_count(len(distinct), held_out, key=key)])


def held_out_count(distinct: int, held_out: float, *, key: str) -> int:
    """Returns how many of `distinct` texts are held out. Raises `UserError` for fewer than two."""
    if distinct < 2:
        found = "only one text, apart from copies" if distinct else "no texts"
        raise UserError(
            f"{key}: has {found}; at least 2 are needed, because one is held out; give more texts"
        )
    return min(max(round(held_out * distinct), 1), distinct - 1)


def apart_from(examples: Sequence[Example], held_out: Sequence[Example], *, key: str) -> Splits:
    """Returns the data set's own split, without training examples that share a text with a held-out
    one, or a prompt, unless all held-out prompts are the same.

    Raises `UserError` naming `key` if no training example is left.
    """
    train = without_copies(examples, of=held_out)
    prompts = np.unique(marks_of(held_out, of_prompts=True))
    if len(prompts) > 1:
        fresh = ~np.isin(marks_of(train, of_prompts=True), prompts)
        train = pick(train, np.flatnonzero(fresh))
    if not len(train):
        raise UserError(f"{key}: all of its texts or prompts are among those held out")
    return Splits(train=train, held_out=held_out)


def without_copies(examples: Sequence[Example], of: Sequence[Example]) -> Sequence[Example]:
    """Returns the examples whose text is not in `of`, without duplicates."""
    marks, places = np.unique(marks_of(examples), return_index=True)
    fresh = ~np.isin(marks, marks_of(of))
    return pick(examples, np.sort(places[fresh]))


def marks_of(examples: Sequence[Example], *, of_prompts: bool = False) -> Marks:
    """Returns the mark of every example, 8 bytes each, so that texts need not be kept.

    With `of_prompts`, it is the mark of the prompt, if the example has one.
    """
    found = np.empty(len(examples), dtype=np.uint64)
    for at, batch in batches(examples, "looking for copies"):
        found[at : at + len(batch)] = [
            mark_of_text(example.prompt) if of_prompts and example.prompt else mark_of(example)
            for example in batch
        ]
    return found


def batches(examples: Sequence[Example], what: str) -> Iterator[tuple[int, Sequence[Example]]]:
    """Yields the position and the examples of each batch, in order, with a progress bar."""
    with Bar(
        total=len(examples), desc=what, unit="text", delay=2, leave=False, disable=None
    ) as bar:
        for at in range(0, len(examples), BATCH):
            batch = examples[at : at + BATCH]
            yield at, batch
            bar.update(len(batch))


def mark_of(example: Example) -> int:
    """Returns a hash of the example's text, equal for texts that differ only in white space."""
    return mark_of_text(f"{example.prompt} {example.completion}")


def mark_of_text(text: str) -> int:
    """Returns 64 bits of a hash of the text's words. The probability of a collision among a million
    texts is about one in forty million."""
    digest = blake2b(" ".join(text.split()).encode("utf-8", "surrogatepass"), digest_size=16)
    return int.from_bytes(digest.digest()[:8])
