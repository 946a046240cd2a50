"""Plan `strided`: anchors at regular distances along raw text, so contexts are nested prefixes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from ebft.lazy import torch
from ebft.parts.part import Part
from ebft.rollout.contexts import make_contexts
from ebft.rollout.records import Contexts, Document


class Strided(Part):
    """Anchors a = start + k·stride while a whole reference of G tokens follows.

    A document of S tokens has (S − G − start)//stride + 1 of them (paper, section 3.1). Rollouts
    always have G tokens: in raw text an end-of-sequence token is a token like any other. No anchor
    lies among the tokens that stand before every text; they count as tokens of a context.

    >>> plan = Strided(start=4, stride=3, rollout_length=2)
    >>> contexts = plan([Document("twelve tokens", torch.arange(12))])
    >>> contexts.anchor.tolist()
    [4, 7, 10]
    >>> contexts.reference.tolist()
    [[4, 5], [7, 8], [10, 11]]
    """

    start: int = Field(8, ge=1, description="first anchor: tokens of the shortest context")
    stride: int = Field(8, ge=1, description="tokens from one anchor to the next")
    rollout_length: int = Field(8, ge=1, description="G, tokens of a rollout and its reference")

    stop_at_eos: ClassVar[bool] = False

    @property
    def shortest_document(self) -> int:
        return self.start + self.rollout_length

    def accepts(self, document: Document) -> bool:
        return document.tokens.numel() >= self._first(document) + self.rollout_length

    def __call__(self, documents: Sequence[Document]) -> Contexts:
        G = self.rollout_length
        anchors = [
            torch.arange(self._first(document), document.tokens.numel() - G + 1, self.stride)
            for document in documents
        ]
        return make_contexts(
            documents, anchors, rollout_length=self.rollout_length, stop_at_eos=self.stop_at_eos
        )

    def _first(self, document: Document) -> int:
        return max(self.start, document.begins)
