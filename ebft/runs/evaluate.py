"""The run of recipe `evaluate`: measures a model on held-out documents, once."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ebft.config.dump import resolved_yaml
from ebft.console import show
from ebft.errors import UserError
from ebft.evaluation.harness import append_figures, check_harness, run_harness
from ebft.evaluation.history import History
from ebft.evaluation.measure import EvaluationSet, measure
from ebft.evaluation.sets import make_evaluation_sets
from ebft.models.folders import is_checkpoint
from ebft.models.lora import cast_base
from ebft.models.probe import probe_tree
from ebft.parts.part import Resources
from ebft.parts.registry import Registry
from ebft.plans.strided import Strided
from ebft.report.card import shared_name
from ebft.report.curves import plot_lengths
from ebft.report.surroundings import Started
from ebft.report.tables import figures_table, harness_table
from ebft.rollout.micro_batches import MicroBatch
from ebft.runs.folder import OutputFolder
from ebft.runs.options import EvaluateOptions
from ebft.runs.page import PageWriter
from ebft.runs.setup import depth_of, held_out_documents, make_resources, read_splits

log = logging.getLogger("ebft")

PROBED = Strided(start=1, stride=1, rollout_length=4)
"""The plan of the probe that compares tree and rows. Evaluators use plans of their own."""


def evaluate(options: EvaluateOptions, registry: Registry) -> None:
    """Measures a model and writes the figures to the output folder.

    Raises `UserError` for a model, data or an output folder that cannot be used, and
    `NumericalError` for a model whose log-probs in a tree are wrong, or a figure that is not
    finite.
    """
    if missing := options.missing_for_parts():
        raise UserError(*missing)
    if options.harness is not None:
        check_harness(options.harness)
    output = OutputFolder(options.output_dir)
    with output.locked(overwrite=options.overwrite) as folder:
        folder.check()
        folder.check_overwritten(options.recipe)
        resources = make_resources(
            options.model, seed=options.seed, depth=depth_of(options), merge_adapter=False
        )
        sets = make_sets(options, resources)
        folder.take(resolved_yaml(options, registry))
        Started.now(f"Evaluation of {shared_name(options.model.name)}").append_to(
            folder.environment
        )
        for one in sets:
            log.info("%s: %d documents", one.name, len(one.documents))
        if options.model.base is None and is_checkpoint(options.model):
            log.warning(
                "features are computed with the checkpoint itself, so figures cannot be compared "
                "with those of other checkpoints; set model.base to the model that it was trained "
                "from"
            )
        else:
            log.info("features are computed with %s", options.model.base or options.model.name)
        measure_all(options, resources, sets, folder)
        if (page := PageWriter(folder.path).write()) is not None:
            log.info("page: %s", page)


def make_sets(options: EvaluateOptions, resources: Resources) -> list[EvaluationSet]:
    """Makes the evaluation sets, and checks that the model computes the same in a tree as in rows.

    Raises `NumericalError` if it does not.
    """
    documents = {}
    if options.evaluation.evaluators:
        plan = options.plan.build(resources)
        splits = read_splits(options.data, options.documents, resources)
        documents = held_out_documents(splits, options.documents, resources, plan)
    sets = make_evaluation_sets(options.evaluation, resources, documents)
    chosen = [document for one in sets for document in one.documents]
    if probed := [document for document in chosen if PROBED.accepts(document)]:
        tried = options.model.attention == "auto"
        probe_tree(resources.policy, probed, PROBED, tried=tried)
    cast_base(resources.policy, resources.precision)  # the probe is in float32
    return sets


def measure_all(
    options: EvaluateOptions,
    resources: Resources,
    sets: Sequence[EvaluationSet],
    output: OutputFolder,
) -> None:
    """Measures the sets, then the tasks of the harness, and writes the figures of each."""
    title = options.model.name
    if options.evaluation.anything():
        history = History(sets, output.evaluations)
        micro_batch = MicroBatch(options.micro_batch)
        history.add(0, measure(resources.policy, sets, micro_batch=micro_batch, steps_done=0))
        show(figures_table(history, title=title))
        if plot_lengths(history, output.lengths):
            log.info("picture: %s", output.lengths)
    if options.harness is not None:
        figures = run_harness(options.harness, resources)
        append_figures(output.evaluations, figures)
        show(harness_table(figures, title=title))
    log.info("figures: %s", output.evaluations)
