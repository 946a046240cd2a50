"""`ebft validate --data`: documents of a recipe as the model will see them, without its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from rich.text import Text

from ebft.console import Bar
from ebft.data.documents import Tokenized
from ebft.data.on_demand import OnDemand
from ebft.models.load import load_outline
from ebft.parts.part import Resources
from ebft.report.document_view import LEGEND, document_view
from ebft.runs.options import FineTuneOptions, ModelRecipeOptions
from ebft.runs.setup import held_out_documents, read_splits, tokenize_split
from ebft.training.objective import cross_entropy_mask

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ebft.parts.interfaces import Plan
    from ebft.rollout.records import Document

    Trained = Literal["completion", "all"]

SHOWN = 3
BATCH = 64


@dataclass(frozen=True, slots=True)
class Preview:
    """What is shown of a recipe's data, and what of it was not read."""

    texts: Sequence[Text]
    unread: Sequence[str]


def preview(options: ModelRecipeOptions) -> Preview:
    """Reads the data. Shows the counts of each split, and three documents of the first one, evenly
    spaced.

    The documents are those of a run: to train on, or in an evaluation those held out. Raises
    `UserError` for a tokenizer or a configuration that is not there, and for data that cannot be
    used.
    """
    policy, tokenizer = load_outline(options.model)
    resources = Resources(
        policy, tokenizer, lambda: policy, torch.device("cpu"), torch.float32, options.seed
    )
    plan: Plan = options.plan.build(resources)
    texts = read_splits(options.data, options.documents, resources)
    splits: dict[str, Tokenized] = {}
    trained: Trained = "completion"
    if isinstance(options, FineTuneOptions):
        trained = options.objective.cross_entropy_tokens
        splits["train"] = tokenize_split(texts.train, "train", options.documents, resources, plan)
    splits |= held_out_documents(texts, options.documents, resources, plan)
    shown = [_counts(name, split, plan, trained) for name, split in splits.items()]
    first = next(iter(splits.values())).documents
    for number in range(min(SHOWN, len(first))):
        document = first[number * len(first) // min(SHOWN, len(first))]
        shown += _shown(document, plan, trained, tokenizer)
    on_demand = [name for name, it in splits.items() if isinstance(it.documents, OnDemand)]
    unread = [f"most documents of {' and '.join(on_demand)} (on demand)"] if on_demand else []
    unread += [f"the data of {one.name} (evaluation.sets)" for one in options.evaluation.sets]
    return Preview([*shown, Text(f"\n{LEGEND}")], unread)


def _counts(name: str, split: Tokenized, plan: Plan, trained: Trained) -> Text:
    """The numbers of documents, of anchors and of tokens. Those that are tokenized on demand are
    not counted: that would tokenize all of them."""
    documents = split.documents
    found = [f"{len(documents):,} documents"]
    if not isinstance(documents, OnDemand):
        tokens = anchors = counted = 0
        with Bar(
            total=len(documents), desc=f"counting {name}", delay=2, leave=False, disable=None
        ) as bar:
            for at in range(0, len(documents), BATCH):
                contexts = plan(documents[at : at + BATCH])
                tokens += int(contexts.lengths.sum())
                counted += int(cross_entropy_mask(contexts, trained).sum())
                anchors += len(contexts)
                bar.update(len(contexts.documents))
        found += [f"{anchors:,} anchors", f"{tokens:,} tokens"]
        found.append(f"{counted:,} of them in the cross-entropy")
    found += [f"dropped {count:,} {why}" for why, count in split.dropped.items()]
    return Text(f"{name}: {', '.join(found)}")


def _shown(
    document: Document, plan: Plan, trained: Trained, tokenizer: PreTrainedTokenizerBase
) -> Sequence[Text]:
    contexts = plan([document])
    tokens, anchors = document.tokens.tolist(), contexts.anchor.tolist()
    mask = cross_entropy_mask(contexts, trained)[0].tolist()
    head = (
        f"{document.name}: {len(tokens)} tokens, {sum(mask)} in the cross-entropy; anchors at "
        f"{', '.join(map(str, anchors[:8]))}{', …' if len(anchors) > 8 else ''}"
    )
    return [
        Text(f"\n{head}", style="bold"),
        document_view(tokens, mask, set(anchors), tokenizer),
    ]
