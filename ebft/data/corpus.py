"""The documents of a split: in memory, or read when they are asked for (`on_demand`)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import islice
from typing import overload

import torch

from ebft.rollout.records import Document


class Corpus(Sequence[Document]):
    """Documents by their place."""

    @abstractmethod
    def digest(self) -> str:
        """What identifies the documents, behind their number: the same for the same documents."""

    @abstractmethod
    def choose(self, places: Iterable[int], count: int) -> list[Document]:
        """The first `count` different documents at these places, or all if there are fewer."""


class InMemory(Corpus):
    """Documents that were tokenized before the first step."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self._documents = tuple(documents)

    def __len__(self) -> int:
        return len(self._documents)

    @overload
    def __getitem__(self, place: int) -> Document: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Document, ...]: ...

    def __getitem__(self, place: int | slice) -> Document | tuple[Document, ...]:
        return self._documents[place]

    def digest(self) -> str:
        return digest_documents(self._documents)

    def choose(self, places: Iterable[int], count: int) -> list[Document]:
        return [self._documents[place] for place in islice(places, count)]


def digest_documents(documents: Sequence[Document]) -> str:
    """A digest of every name, token and check, in order, behind the number of documents."""
    digest = blake2b(digest_size=16)
    for document in documents:
        head = f"{document.name}\0{document.prompt_length}\0{document.check}\0"
        digest.update(head.encode("utf-8", "surrogatepass"))  # a file's name may be no UTF-8
        digest.update(document.tokens.to(torch.int64).numpy().tobytes())
    return f"{len(documents)} documents, {digest.hexdigest()}"
