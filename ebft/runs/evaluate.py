"""Recipe `evaluate`: measures a model on held-out documents, once."""

from __future__ import annotations

import logging
from pathlib import Path

from ebft.config.dump import resolved_yaml
from ebft.console import show
from ebft.errors import UserError
from ebft.evaluation.harness import append_figures, check_harness, run_harness
from ebft.evaluation.history import History
from ebft.evaluation.measure import measure
from ebft.models.load import is_checkpoint
from ebft.models.lora import cast_base
from ebft.models.probe import probe_tree
from ebft.plugins import Registry
from ebft.report.lengths import plot_lengths
from ebft.report.summary import figures_table, harness_table
from ebft.rollout.micro_batches import MicroBatch
from ebft.rollout.strided import Strided
from ebft.runs.documents import held_out_documents, read_splits
from ebft.runs.evaluate_options import EvaluateOptions
from ebft.runs.evaluation_sets import make_evaluation_sets
from ebft.runs.output import OutputFolder
from ebft.runs.resources import make_resources

log = logging.getLogger("ebft")

PROBED = Strided(start=1, stride=1, rollout_length=4)
"""Where the model is held to plain rows: anywhere, for evaluators have plans of their own."""


class Evaluate:
    """Measures as an `EvaluateOptions` recipe says; writes what it finds to the output folder.

    `setup` raises `UserError` for what is wrong with the recipe's model, data or output folder, and
    `NumericalError` for a model that does not compute what the figures are made of; `run` raises
    that if a figure is not finite.
    """

    def __init__(self, options: EvaluateOptions, registry: Registry, *, source: Path) -> None:
        self._options, self._registry, self._source = options, registry, source
        self._output = OutputFolder(options.output_dir, overwrite=options.overwrite)

    def setup(self) -> None:
        """Loads the model and the data, builds the evaluators and takes the output folder."""
        options = self._options
        if missing := options.missing_for_parts():
            raise UserError(*missing)
        if options.harness is not None:
            check_harness(options.harness)
        self._output.lock()
        self._output.check()
        self._output.check_overwritten(options.recipe)
        self._resources = resources = make_resources(options, merge_adapter=False)
        documents = {}
        if options.evaluation.evaluators:
            plan, splits = options.plan.build(resources), read_splits(options, resources)
            documents = held_out_documents(options, resources, plan, splits)
        sets = make_evaluation_sets(options, resources, documents)
        chosen = [document for one in sets for document in one.documents]
        if probed := [document for document in chosen if PROBED.accepts(document)]:
            probe_tree(resources.policy, probed, PROBED)
        cast_base(resources.policy, resources.precision)  # the probe is in float32
        self._output.take(resolved_yaml(options, self._registry))
        self._sets, self._history = sets, History(sets, self._output.evaluations)
        for one in sets:
            log.info("%s: %d documents", one.name, len(one.documents))
        if options.model.base is None and is_checkpoint(options.model):
            log.warning(
                "features are those of the checkpoint itself, so figures do not compare with those "
                "of other checkpoints; set model.base to the model that it was trained from"
            )
        else:
            log.info("features are those of %s", options.model.base or options.model.path)

    def run(self) -> bool:
        """Measures everything once."""
        title = self._options.model.path
        if self._options.evaluation.anything():
            micro_batch = MicroBatch(self._options.micro_batch)
            measured = measure(
                self._resources.policy, self._sets, micro_batch=micro_batch, steps_done=0
            )
            self._history.add(0, measured)
            show(figures_table(self._history, title=title))
            if plot_lengths(self._history, self._output.lengths):
                log.info("picture: %s", self._output.lengths)
        if self._options.harness is not None:
            figures = run_harness(self._options.harness, self._resources)
            append_figures(self._output.evaluations, figures)
            show(harness_table(figures, title=title))
        log.info("figures: %s", self._output.evaluations)
        return True

    def cleanup(self) -> None:
        """Lets others write into the output folder."""
        self._output.release()
