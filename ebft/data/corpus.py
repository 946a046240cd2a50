"""The documents of a split: in memory, or tokenized when accessed (`on_demand`)."""

from __future__ import annotations

from abc import abstractmethod
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import islice
from typing import overload

import numpy as np
from jaxtyping import Int

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
    """Documents that were tokenized before the first step.

    The tokens of all documents are in one array, 4 bytes each, because a tensor for each document
    would need more than twice as much memory. A document is made when it is accessed.
    """

    def __init__(self, documents: Iterable[Document]) -> None:
        tokens, ends = array("i"), array("q", [0])
        self._documents: list[Document] = []
        nothing = torch.empty(0, dtype=torch.long)
        for document in documents:
            tokens.frombytes(document.tokens.numpy().astype(np.intc).tobytes())
            ends.append(len(tokens))
            self._documents.append(replace(document, tokens=nothing))
        self._tokens, self._ends = np.frombuffer(tokens, dtype=np.intc), ends

    def __len__(self) -> int:
        return len(self._documents)

    @overload
    def __getitem__(self, place: int) -> Document: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Document, ...]: ...

    def __getitem__(self, place: int | slice) -> Document | tuple[Document, ...]:
        if isinstance(place, slice):
            return tuple(self[i] for i in range(*place.indices(len(self))))
        document, at = self._documents[place], place % len(self._documents)
        tokens = self._tokens[self._ends[at] : self._ends[at + 1]].astype(np.int64)
        return replace(document, tokens=torch.from_numpy(tokens))

    def digest(self) -> str:
        digest = blake2b(digest_size=16)
        for at, document in enumerate(self._documents):
            _add(digest, document, self._tokens[self._ends[at] : self._ends[at + 1]])
        return f"{len(self)} documents, {digest.hexdigest()}"

    def choose(self, places: Iterable[int], count: int) -> list[Document]:
        return [self[place] for place in islice(places, count)]


def digest_documents(documents: Sequence[Document]) -> str:
    """Returns the number of documents and a hash of every name, token, check and turn, in order."""
    digest = blake2b(digest_size=16)
    for document in documents:
        _add(digest, document, document.tokens.numpy())
    return f"{len(documents)} documents, {digest.hexdigest()}"


def _add(digest: blake2b, document: Document, tokens: Int[np.ndarray, " S"]) -> None:
    head = f"{document.name}\0{document.prompt_length}\0{document.check}\0"
    if document.turns:  # the digests of other documents are in checkpoints of earlier versions
        head += f"{document.turns}\0"
    digest.update(head.encode("utf-8", "surrogatepass"))  # a file name may not be UTF-8
    digest.update(tokens.astype(np.int64).tobytes())
