"""Everything that a fine-tuning run needs before its first step, or where it goes on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ebft.digests import digest_documents, digest_weights
from ebft.evaluation.measure import EvaluationSet
from ebft.models.lora import cast_base
from ebft.models.probe import probe_tree
from ebft.parts import Resources
from ebft.processes import Processes
from ebft.rollout.micro_batches import MicroBatch
from ebft.runs.documents import Documents, make_documents
from ebft.runs.evaluation_sets import make_evaluation_sets
from ebft.runs.finetune_options import FineTuneOptions
from ebft.runs.machinery import make_machinery
from ebft.runs.memory import choose_micro_batch
from ebft.runs.resources import make_resources, memory_at_hand
from ebft.runs.start import Start
from ebft.training.machinery import Machinery

log = logging.getLogger("ebft")


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is trained, on what, and what it is measured on.

    `free` bytes were free before any model was loaded. `digests` are of the base model's weights
    and of the documents.
    """

    free: int
    resources: Resources
    documents: Documents
    sets: Sequence[EvaluationSet]
    digests: Mapping[str, str]
    machinery: Machinery


def prepare(options: FineTuneOptions, start: Start, processes: Processes) -> Prepared:
    """Loads the model and the data and builds the parts.

    Raises `UserError` for what is wrong with them, and where they are not those of the checkpoint
    that the run goes on from.
    """
    free = memory_at_hand(options, processes)
    micro_batch = make_micro_batch(options, free, processes, before=start.micro_batch)
    resources = make_resources(options, processes)
    base = digest_base(options, resources)  # before the policy has a checkpoint's weights
    if start.resumed is not None:
        start.resumed.load_weights(resources.policy)
    plan = options.plan.build(resources)
    documents = make_documents(options, resources, plan)
    sets = make_evaluation_sets(options, resources, documents.evaluated)
    digests = {
        "base": base,
        "train": digest_documents(documents.train.documents),
        "held_out": digest_documents([document for one in sets for document in one.documents]),
    }
    if start.resumed is not None:
        start.resumed.check_digests(digests)
    # While the weights are whole and in float32.
    gap = probe_tree(resources.policy, documents.train.documents, plan)
    log.info("a tree equals independent rows: log-probs differ by at most %.1g nats", gap)
    shard_weights(options, resources)
    machinery = make_machinery(options, resources, plan, documents.train.documents, micro_batch)
    return Prepared(free, resources, documents, sets, digests, machinery)


def make_micro_batch(
    options: FineTuneOptions, free: int, processes: Processes, *, before: int | None
) -> MicroBatch:
    """The micro-batch that the recipe says, or what `free` bytes hold: `before`, if that fits."""
    documents = choose_micro_batch(options, free, processes=processes.size, before=before)
    # The same everywhere: processes compute in step, a micro-batch at a time.
    return MicroBatch(int(processes.gather(torch.tensor([documents])).min()))


def digest_base(options: FineTuneOptions, resources: Resources) -> str:
    """A digest of the policy that training starts from, and of the base model if it is another."""
    digest = digest_weights(resources.policy)
    if options.model.base is not None:
        digest += " " + digest_weights(resources.load_base())
    return digest


def shard_weights(options: FineTuneOptions, resources: Resources) -> None:
    """Gives each process its part; in one alone, frozen weights take the precision of forwards."""
    processes = resources.processes
    if processes.mesh is not None:
        from ebft.models.shard import shard

        shard(resources.policy, processes.mesh, resources.precision)
    elif options.model.lora is not None:
        cast_base(resources.policy, resources.precision)
