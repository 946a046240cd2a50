"""Documents of a source that is too large to be tokenized before the first step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import overload

import numpy as np

from ebft.data.conversations import targets, turns_apart
from ebft.data.corpus import Corpus
from ebft.data.split import batches
from ebft.errors import UserError
from ebft.parts.splits import Example
from ebft.rollout.records import Document

TRIES = 1000


class OnDemand(Corpus):
    """Each document is read from disk and tokenized when it is accessed; nothing is kept.

    The document at a place depends only on the place, so an order over places can be resumed like
    one over documents in memory. Each prompt with its completion is one place, and so is each turn
    of a conversation that is trained on, with the messages before it. Raw text is cut at the first
    end of a line after every `width` characters, and each cut is a place. Together the cuts are the
    whole text; if a cut has too many tokens, the last ones are dropped. A place whose document is
    not accepted gives the next accepted document, so documents after many dropped ones come more
    often.

    The digest is a hash of all texts and of the cuts, because there are no tokens yet.
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
        # The first place of each text, followed by the number of places.
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
        # Several places may give the same document, which counts once.
        found: dict[str, Document] = {}
        for place in places:
            document = self[place]
            found.setdefault(document.name, document)
            if len(found) == count:
                break
        return list(found.values())

    def _cut(self, place: int) -> Example:
        """Returns the text at a place: a whole text, or its part from one cut to the next."""
        at = int(np.searchsorted(self._first, place, side="right")) - 1
        example, number = self._examples[at], place - int(self._first[at])
        if example.messages:
            return turns_apart(example)[number]
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
        """Returns the position of cut `number`: after the line there, at most one width later."""
        place = number * self._width
        if number == 0 or place >= len(text):
            return min(place, len(text))
        newline = text.find("\n", place - 1, place + self._width)
        return place if newline < 0 else newline + 1

    def _survey(self) -> tuple[np.ndarray, str]:
        """Returns the number of places of each text, at least one, and the digest."""
        counts = np.ones(len(self._examples), dtype=np.int64)
        digest = blake2b(f"{self._width}\0".encode(), digest_size=16)
        for at, batch in batches(self._examples, "measuring texts"):
            for number, example in enumerate(batch, at):
                if example.messages:
                    counts[number] = len(targets(example.messages))
                elif not example.prompt:
                    counts[number] = max(1, -(-len(example.completion) // self._width))
                texts = (example.name, example.prompt, example.completion, example.check, "")
                digest.update("\0".join(texts).encode("utf-8", "surrogatepass"))
        return counts, digest.hexdigest()
