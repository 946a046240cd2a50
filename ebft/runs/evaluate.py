"""The run of recipe `evaluate`: measures a model on held-out documents, once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack

from ebft.config.dump import resolved_yaml
from ebft.console import show
from ebft.distributed.parallel import ParallelOptions, join
from ebft.distributed.processes import Launch, Processes
from ebft.errors import UserError
from ebft.evaluation.harness import append_figures, check_harness, run_harness
from ebft.evaluation.history import History
from ebft.evaluation.measure import EvaluationSet, measure
from ebft.evaluation.sets import make_evaluation_sets
from ebft.models.folders import is_checkpoint
from ebft.models.lora import cast_base
from ebft.models.options import resolve_device
from ebft.models.probe import check_layout
from ebft.parts.part import Resources
from ebft.parts.registry import Registry
from ebft.plans.strided import Strided
from ebft.report.card import shared_name
from ebft.report.curves import plot_lengths
from ebft.report.surroundings import Started
from ebft.report.tables import figures_table, harness_table
from ebft.rollout.micro_batches import MicroBatch
from ebft.runs.checks import shared_device_problems
from ebft.runs.folder import OutputFolder
from ebft.runs.options import EvaluateOptions
from ebft.runs.page import PageWriter
from ebft.runs.setup import depth_of, held_out_documents, make_resources, read_splits

log = logging.getLogger("ebft")

PROBED = Strided(start=1, stride=1, rollout_length=4)
"""The plan of the probe that compares tree and rows. Evaluators use plans of their own."""


def evaluate(options: EvaluateOptions, registry: Registry) -> None:
    """Measures a model and writes the figures to the output folder.

    With several processes, each measures its share of the documents. The main process alone runs
    the tasks of the harness.

    Raises `UserError` for a model, data or an output folder that cannot be used, and
    `NumericalError` for a model whose log-probs in a tree are wrong, or a figure that is not
    finite.
    """
    if missing := options.missing_for_parts():
        raise UserError(*missing)
    if options.harness is not None:
        check_harness(options.harness)
    launch = Launch.of_environment()
    if problems := list(shared_device_problems(launch.size, options.model)):
        raise UserError(*problems)
    processes = join(launch, ParallelOptions(), resolve_device(options.model.device))
    output, folder = OutputFolder(options.output_dir), None
    with ExitStack() as opened:
        if processes.is_main:
            folder = opened.enter_context(output.locked(overwrite=options.overwrite))
            folder.check()
            folder.check_overwritten(options.recipe)
        # Each process has the whole model, and computes by itself.
        resources = make_resources(
            options.model, seed=options.seed, depth=depth_of(options), merge_adapter=False
        )
        sets = make_sets(options, resources)
        if folder is not None:
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
        measure_sets(options, resources, sets, output, processes)
        processes.close()
        if folder is None:
            return
        run_tasks(options, resources, folder)
        log.info("figures: %s", folder.evaluations)
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
        check_layout(resources.policy, probed, PROBED, tried=options.model.tries_layouts)
    cast_base(resources.policy, resources.precision)  # the probe is in float32
    return sets


def measure_sets(
    options: EvaluateOptions,
    resources: Resources,
    sets: Sequence[EvaluationSet],
    output: OutputFolder,
    processes: Processes,
) -> None:
    """Measures the sets, whose documents are divided over the processes. The main process writes
    and shows the figures."""
    if not options.evaluation.anything():
        return
    history = History(sets, output.evaluations, processes=processes)
    log.info("evaluating …")
    measured = measure(
        resources.policy, sets,
        micro_batch=MicroBatch(options.micro_batch), processes=processes, steps_done=0,
    )  # fmt: skip
    history.add(0, measured)
    show(figures_table(history, title=options.model.name))
    if processes.is_main and plot_lengths(history, output.lengths):
        log.info("picture: %s", output.lengths)


def run_tasks(options: EvaluateOptions, resources: Resources, output: OutputFolder) -> None:
    """Runs the tasks of the harness, if there are any, and writes and shows their figures."""
    if options.harness is None:
        return
    figures = run_harness(options.harness, resources)
    append_figures(output.evaluations, figures)
    show(harness_table(figures, title=options.model.name))
