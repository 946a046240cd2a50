"""Plan `completion`: one anchor for each document, where its prompt ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field

from ebft.parts.part import Part
from ebft.rollout.contexts import make_contexts
from ebft.rollout.records import Contexts, Document


class Completion(Part):
    """The context is the prompt; rollouts end with end-of-sequence or after G tokens.

    The reference is the completion's first G tokens, or all of them if it is shorter.
    """

    rollout_length: int = Field(64, ge=1, description="G, the most tokens of a rollout")

    stop_at_eos: ClassVar[bool] = True

    @property
    def shortest_document(self) -> int:
        return 2

    def accepts(self, document: Document) -> bool:
        return 1 <= document.prompt_length < document.tokens.numel()

    def __call__(self, documents: Sequence[Document]) -> Contexts:
        anchors = [torch.tensor([document.prompt_length]) for document in documents]
        return make_contexts(
            documents, anchors, rollout_length=self.rollout_length, stop_at_eos=self.stop_at_eos
        )
