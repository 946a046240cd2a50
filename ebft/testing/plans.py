"""`check_plan`: are contexts valid for all documents that it accepts?"""

from __future__ import annotations

import torch

from ebft.parts.interfaces import Plan
from ebft.parts.part import Part, Resources
from ebft.rollout.records import Contexts, Document
from ebft.testing.common import check_options, require
from ebft.testing.tiny import tiny_documents, tiny_resources


def check_plan(part: Part, resources: Resources | None = None) -> None:
    """Checks a plan on documents of many lengths, with prompts and without.

    It must refuse documents shorter than `shortest_document`. Every document that it accepts has at
    least one anchor; anchors ascend, with a token of the document before and after each. References
    are the document's own tokens after the anchor, masked after the document's end. A document's
    contexts do not depend on the other documents. Raises `AssertionError`.
    """
    check_options(part)
    resources = tiny_resources() if resources is None else resources
    plan = part.build(resources)
    require(part, isinstance(plan, Plan), "build() has accepts, rollout_length and the rest")
    vocabulary = resources.policy.config.vocab_size
    longest = 3 * (plan.shortest_document + plan.rollout_length)
    lengths = list(range(1, longest))
    raw = tiny_documents(lengths, vocabulary=vocabulary)
    pairs = tiny_documents(lengths[4:], prompt_length=4, vocabulary=vocabulary)
    any_accepted = False
    for documents in (raw, pairs):
        accepted = [document for document in documents if plan.accepts(document)]
        require(
            part,
            all(d.tokens.numel() >= plan.shortest_document for d in accepted),
            "documents shorter than shortest_document are refused",
        )
        if accepted:
            any_accepted = True
            contexts = plan(accepted)
            _check_contexts(part, plan, contexts, accepted)
            _check_each_alone(part, plan, contexts, accepted)
    require(part, any_accepted, f"it accepts some document of up to {longest} tokens")


def _check_contexts(part: Part, plan: Plan, contexts: Contexts, documents: list[Document]) -> None:
    require(part, isinstance(contexts, Contexts), "it returns ebft.Contexts")
    require(part, list(contexts.documents) == documents, "its documents are the argument documents")
    rows = contexts.row.tolist()
    require(part, rows == sorted(rows), "contexts of a document are adjacent, and rows ascend")
    require(
        part,
        set(rows) == set(range(len(documents))),
        "every document that it accepts has an anchor",
    )
    require(part, contexts.rollout_length == plan.rollout_length, "G is plan.rollout_length")
    require(part, contexts.stop_at_eos == plan.stop_at_eos, "stop_at_eos is that of its contexts")
    G = plan.rollout_length
    for p, (row, anchor) in enumerate(zip(rows, contexts.anchor.tolist(), strict=True)):
        tokens = documents[row].tokens
        require(
            part,
            1 <= anchor < tokens.numel(),
            "an anchor has a token before it, and one of the document after it",
        )
        after = tokens[anchor : anchor + G]
        mask = torch.arange(G) < after.numel()
        require(
            part,
            torch.equal(contexts.reference_mask[p], mask)
            and torch.equal(contexts.reference[p][mask], after),
            "a reference is the document's own next tokens, masked after its end",
        )
        require(
            part,
            p == 0 or rows[p - 1] != row or int(contexts.anchor[p - 1]) < anchor,
            "anchors of a document ascend",
        )
    require(
        part,
        contexts.lengths.tolist() == [document.tokens.numel() for document in documents],
        "lengths are those of the documents",
    )


def _check_each_alone(
    part: Part, plan: Plan, contexts: Contexts, documents: list[Document]
) -> None:
    for row, document in enumerate(documents):
        alone, mine = plan([document]), contexts.row == row
        require(
            part,
            torch.equal(alone.anchor, contexts.anchor[mine])
            and torch.equal(alone.reference, contexts.reference[mine])
            and alone.stop_at_eos == contexts.stop_at_eos,
            "a document's contexts do not depend on the other documents",
        )
