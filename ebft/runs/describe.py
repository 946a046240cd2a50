"""Says what a run is about to do: which model, how many weights, how many documents."""

from __future__ import annotations

import logging

from ebft.runs.options import FineTuneOptions
from ebft.runs.setup import Prepared

log = logging.getLogger("ebft")


def describe(options: FineTuneOptions, prepared: Prepared) -> None:
    """Logs it."""
    resources, documents = prepared.resources, prepared.documents
    parameters = list(resources.policy.parameters())
    count, trained = (
        sum(p.numel() for p in some) / 1e6
        for some in (parameters, (p for p in parameters if p.requires_grad))
    )
    log.info(
        "%s of %s: %.1f M parameters%s, on %s in %s",
        options.method, options.model.path, count,
        "" if trained == count else f" of which {trained:.2f} M are trained",
        resources.device, options.model.precision,
    )  # fmt: skip
    claim = None if options.sampler is None else options.sampler.claim()
    if claim is not None and not claim.unbiased:
        log.warning("OFF-POLICY: sampler: %s, so the policy gradient is biased", claim.why)
    log.info("memory: %s", prepared.budget.describe(prepared.loop.micro_batch.documents))
    if options.feature_map is not None and not options.uses_features:
        log.info("feature_map: not computed in training, for the reward uses no features")
    for name, part in {"train": documents.train, **documents.evaluated}.items():
        dropped = "; ".join(f"dropped {n:,} {why}" for why, n in part.dropped.items())
        log.info("%s: %s documents%s", name, f"{len(part.documents):,}", dropped and f"; {dropped}")
    per_step, count = options.training.documents_per_step, len(documents.train.documents)
    if per_step > count:
        log.warning(
            "training.documents_per_step = %d: there are %d documents to train on, so a step has "
            "some of them several times",
            per_step, count,
        )  # fmt: skip
    for one in prepared.sets:
        log.info("evaluated on %d %s documents", len(one.documents), one.name)
