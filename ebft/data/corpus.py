"""The documents of a split: in memory, or tokenized when accessed (`on_demand`)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import islice
from typing import overload

from ebft.lazy import torch
from ebft.rollout.records import Document


class Corpus(Sequence[Document]):
    """A sequence of documents."""

    @abstractmethod
    def digest(self) -> str:
        """Returns the number of documents and a hash: the same for the same documents."""

    @abstractmethod
    def choose(self, places: Iterable[int], count: int) -> list[Document]:
        """Returns the first `count` different documents at these places, or all if fewer."""


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
    """Returns the number of documents and a hash of every name, token, check and turn, in order."""
    digest = blake2b(digest_size=16)
    for document in documents:
        head = f"{document.name}\0{document.prompt_length}\0{document.check}\0"
        if document.turns:  # the digests of other documents are in checkpoints of earlier versions
            head += f"{document.turns}\0"
        digest.update(head.encode("utf-8", "surrogatepass"))  # a file name may not be UTF-8
        digest.update(document.tokens.to(torch.int64).numpy().tobytes())
    return f"{len(documents)} documents, {digest.hexdigest()}"
