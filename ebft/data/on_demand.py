"""Documents of a source that is too large to be tokenised before the first step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import overload

import numpy as np

from ebft.data.corpus import Corpus
from ebft.data.split import batches
from ebft.errors import UserError
from ebft.parts.splits import Example
from ebft.rollout.records import Document

TRIES = 1000


class OnDemand(Corpus):
    """Each document is tokenised when it is asked for, from what is on disk; nothing is kept.

    Which document stands at a place depends on the place alone, so an order over places is as
    resumable as one over documents in memory. Prompts with their completions are one place each.
    Raw text is cut at the ends of lines, every `width` characters or after, and each cut is a
    place: together they are the whole text, and of a cut with too many tokens the last are left
    out. At the place of a document that is not accepted stands the next one that is, so those
    after many dropped ones come more often.

    The digest is of all texts and of where they are cut, for there are no tokens yet.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        tokenize: Callable[[Example], Document],
        why_not: Callable[[Document], str | None],
        *,
        width: int,
    ) -> None:
        self._examples, self._tokenize, self._why_not = examples, tokenize, why_not
        self._width = width
        # The first place of each text, and after the last one's the number of places.
        cuts, self._digest = self._survey()
        self._first = np.concatenate([[0], np.cumsum(cuts)])

    def __len__(self) -> int:
        return int(self._first[-1])

    @overload
    def __getitem__(self, place: int) -> Document: ...

    @overload
    def __getitem__(self, place: slice) -> list[Document]: ...

    def __getitem__(self, place: int | slice) -> Document | list[Document]:
        """Raises `UserError` if none of the next thousand documents is accepted either."""
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        reasons: list[str] = []
        for later in range(min(TRIES, len(self))):
            document = self._tokenize(self._cut((place + later) % len(self)))
            if (reason := self._why_not(document)) is None:
                return document
            reasons.append(reason)
        why = ", ".join(f"{reasons.count(reason)} {reason}" for reason in dict.fromkeys(reasons))
        raise UserError(
            f"data: none of {len(reasons)} documents in a row can be used ({why}); change "
            "documents.length or the plan, or leave such texts out of the data"
        )

    def digest(self) -> str:
        return f"{len(self)} documents on demand, {self._digest}"

    def choose(self, places: Iterable[int], count: int) -> list[Document]:
        # At the place of a document that is not accepted stands another one, which counts once.
        found: dict[str, Document] = {}
        for place in places:
            document = self[place]
            found.setdefault(document.name, document)
            if len(found) == count:
                break
        return list(found.values())

    def _cut(self, place: int) -> Example:
        """The text at a place: a whole one, or its part from one cut to the next."""
        at = int(np.searchsorted(self._first, place, side="right")) - 1
        example, number = self._examples[at], place - int(self._first[at])
        if example.prompt:
            return example
        text = example.completion
        start, end = (self._end_of_line(text, number + i) for i in (0, 1))
        return replace(
            example,
            name=f"{example.name}#{number + 1}",
            completion=text[start:end],
            cluster=example.cluster or example.name,
        )

    def _end_of_line(self, text: str, number: int) -> int:
        """Where cut `number` is: behind the line that goes across it, but not a whole cut later."""
        place = number * self._width
        if number == 0 or place >= len(text):
            return min(place, len(text))
        newline = text.find("\n", place - 1, place + self._width)
        return place if newline < 0 else newline + 1

    def _survey(self) -> tuple[np.ndarray, str]:
        """Into how many places each text is cut, at least one; and the digest."""
        counts = np.ones(len(self._examples), dtype=np.int64)
        digest = blake2b(f"{self._width}\0".encode(), digest_size=16)
        for at, batch in batches(self._examples, "measuring texts"):
            for number, example in enumerate(batch, at):
                if not example.prompt:
                    counts[number] = max(1, -(-len(example.completion) // self._width))
                texts = (example.name, example.prompt, example.completion, example.check, "")
                digest.update("\0".join(texts).encode("utf-8", "surrogatepass"))
        return counts, digest.hexdigest()
