"""What is measured: the model, the documents, and rollouts of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ebft.data.order import DocumentOrder
from ebft.diagnosis import FEWEST
from ebft.diagnosis.sets import draw_both
from ebft.distributed.processes import ONE_PROCESS
from ebft.errors import UserError
from ebft.models.layout import Depth
from ebft.models.options import resolve_device
from ebft.models.probe import check_layout
from ebft.rollout.micro_batches import tree_tokens
from ebft.runs.estimate import memory_need
from ebft.runs.memory import MemoryBudget, free_memory, make_micro_batch
from ebft.runs.setup import (
    cast_frozen,
    make_resources,
    read_splits,
    tokenize_split,
)
from ebft.training.gradients import trained_weights
from ebft.training.sketch import Sketch

if TYPE_CHECKING:
    from ebft.diagnosis.alternatives import Alternative
    from ebft.parts.part import Resources
    from ebft.rollout.records import Document, Rollouts
    from ebft.runs.options import ModelRecipeOptions

log = logging.getLogger("ebft")


@dataclass(frozen=True, slots=True)
class Subject:
    """The model and the documents that all alternatives are measured on.

    `others` are the documents that follow in the order of training, for parts with state, which
    need an earlier step. `free` bytes were free before the model was loaded.
    """

    resources: Resources
    documents: Sequence[Document]
    others: Sequence[Document]
    free: int
    sketch: Sketch

    @classmethod
    def load(cls, options: ModelRecipeOptions, count: int, *, others: int, depth: Depth) -> Subject:
        """Loads the model and the data, and chooses the first documents that a run trains on.

        `depth` is the most tokens of a document and of a rollout, of any alternative.

        Raises `UserError` for a model or data that cannot be used, and for fewer than `FEWEST`
        documents.
        """
        free = free_memory(resolve_device(options.model.device))
        resources = make_resources(options.model, seed=options.seed, depth=depth)
        plan = options.plan.build(resources)
        splits = read_splits(options.data, options.documents, resources)
        corpus = tokenize_split(splits.train, "train", options.documents, resources, plan).documents
        if len(corpus) < FEWEST:
            raise UserError(
                f"data: has {len(corpus)} documents to train on, and intervals need {FEWEST} or "
                "more; give it more texts, or a smaller documents.length"
            )
        if len(corpus) < count:
            log.warning("--documents %d: the data has %d to train on", count, len(corpus))
        order, used = DocumentOrder(options.seed, len(corpus)), min(count, len(corpus))
        chosen = [corpus[place] for place in order(0, min(used + others, len(corpus)))]
        check_layout(resources.policy, chosen, plan, tried=options.model.tries_layouts)
        cast_frozen(resources, has_lora=options.model.lora is not None)
        sketch = Sketch(trained_weights(resources.policy), seed=options.seed)
        return cls(resources, chosen[:used], chosen[used:] or chosen[:others], free, sketch)

    def check(self, one: Alternative) -> None:
        """Raises `UserError` if its plan does not accept one of the documents."""
        plan = one.options.plan.build(self.resources)
        for document in [*self.documents, *self.others]:
            if not plan.accepts(document):
                raise UserError(
                    f"--vary {one.label}: its plan does not accept {document.name}, which the "
                    "recipe's does; set documents.shortest so that both accept the same documents"
                )

    def draw(self, one: Alternative, documents: Sequence[Document]) -> Iterator[Rollouts]:
        """Twice the rollouts of each context, the documents of a step at a time."""
        options = one.options
        assert options.sampler is not None
        step = options.training.documents_per_step
        twice = options.sampler.model_copy(update={"n": 2 * options.sampler.n})
        sampler, plan = twice.build(self.resources), options.plan.build(self.resources)
        need = memory_need(options.model_copy(update={"sampler": twice}))
        budget = MemoryBudget(options.training, need, self.free)
        size = make_micro_batch(budget, ONE_PROCESS, before=None).documents
        tokens = size * max(tree_tokens(plan(documents), twice.n))
        for at in range(0, len(documents), step):
            yield draw_both(sampler, plan, documents[at : at + step], self.resources, tokens)
