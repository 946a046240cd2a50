"""Plan `completion`: an anchor where a document's prompt ends, or where each turn starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from ebft.lazy import torch
from ebft.parts.part import Part
from ebft.rollout.contexts import make_contexts
from ebft.rollout.records import Contexts, Document


class Completion(Part):
    """The context is the prompt; rollouts end with end-of-sequence or after G tokens.

    The reference is the completion's first G tokens, or all of them if it is shorter. In a
    conversation each turn of the assistant is a completion of all that precedes it.

    >>> chat = Document("two turns", torch.arange(12), 3, turns=((3, 5), (8, 11)))
    >>> contexts = Completion(rollout_length=3)([chat])
    >>> contexts.anchor.tolist()
    [3, 8]
    >>> contexts.reference.tolist()
    [[3, 4, 0], [8, 9, 10]]
    """

    rollout_length: int = Field(64, ge=1, description="G, the most tokens of a rollout")

    stop_at_eos: ClassVar[bool] = True

    @property
    def shortest_document(self) -> int:
        return 2

    def accepts(self, document: Document) -> bool:
        return 1 <= document.prompt_length < document.tokens.numel()

    def __call__(self, documents: Sequence[Document]) -> Contexts:
        spans = [torch.tensor(document.completions) for document in documents]
        return make_contexts(
            documents,
            [span[:, 0] for span in spans],
            ends=[span[:, 1] for span in spans],
            rollout_length=self.rollout_length,
            stop_at_eos=self.stop_at_eos,
        )
