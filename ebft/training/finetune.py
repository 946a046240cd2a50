"""Recipe `finetune`: set up, measure, train, measure again, report."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ebft.config.dump import resolved_yaml
from ebft.errors import PolicyIntactError, StorageError
from ebft.evaluation.history import History
from ebft.models.probe import probe_tree
from ebft.plugins import Registry
from ebft.report.curves import plot_curves
from ebft.report.summary import summary_table
from ebft.training.checkpoint import Checkpoints
from ebft.training.gradients import measure_gradients
from ebft.training.interrupt import stop_on_interrupt
from ebft.training.loop import Step, train
from ebft.training.options import FineTuneOptions
from ebft.training.output import OutputFolder
from ebft.training.setup import (
    Documents,
    make_documents,
    make_evaluators,
    make_machinery,
    make_resources,
)
from ebft.training.watch import Watcher

log = logging.getLogger("ebft")


class FineTune:
    """Fine-tunes a policy as a `FineTuneOptions` recipe says.

    `setup` raises `UserError` for what is wrong with the recipe's model, data or output folder;
    `run` raises `NumericalError`, `StorageError` and `PolicyIntactError`, the last with a
    checkpoint saved, and returns whether all steps were run.
    """

    def __init__(self, options: FineTuneOptions, registry: Registry, *, source: Path) -> None:
        self._options, self._registry, self._source = options, registry, source
        self._output = OutputFolder(options.output_dir, overwrite=options.overwrite)
        self._closing = ExitStack()

    def setup(self) -> None:
        """Loads the model and the data, builds the parts and claims the output folder."""
        # torchtune takes seconds to import; a mistake in the recipe is found before that.
        from torchtune.training import set_seed

        options = self._options
        self._output.check()
        set_seed(options.seed)
        self._resources = make_resources(options)
        documents = make_documents(options, self._resources)
        self._machinery = make_machinery(options, self._resources, documents.train.documents)
        gap = probe_tree(self._resources.policy, documents.train.documents, self._machinery.plan)
        log.info("a tree equals independent rows: log-probs differ by at most %.1g nats", gap)
        self._output.claim(resolved_yaml(options, self._registry))
        self._history = History(
            make_evaluators(options, self._resources),
            documents.evaluated,
            self._output.evaluations,
            micro_batch=options.training.micro_batch,
        )
        self._checkpoints = Checkpoints(self._output.checkpoints, options.checkpoint.keep)
        self._watcher = Watcher(
            steps=options.training.steps,
            loggers=[logger.instantiate() for logger in options.metric_loggers],
            label=options.method,
            tokenizer=self._resources.tokenizer,
            show_rollouts_every=options.training.show_rollouts_every,
        )
        self._closing.callback(self._watcher.close)
        self._describe(documents)

    def run(self) -> bool:
        """Runs the steps; Ctrl-C stops after the one in progress with a checkpoint saved."""
        options, policy = self._options, self._resources.policy
        self._evaluate(0)
        with stop_on_interrupt() as stop, self._saving_what_is_intact():
            done = 0
            for step in train(self._machinery, range(options.training.steps)):
                done = step.number + 1
                self._watcher.step(step)
                if is_due(done, options.training.measure_gradients_every):
                    self._measure_gradients(step)
                last = done == options.training.steps or bool(stop)
                if last or is_due(done, options.checkpoint.every):
                    self._checkpoints.save(policy, self._resources.tokenizer, step=done)
                if not last and is_due(done, options.evaluation.every):
                    self._evaluate(done)
                if stop:
                    break
                self._watcher.restart_clock()
        if done < options.training.steps:
            log.warning(
                "stopped after step %d; checkpoint: %s", done, self._checkpoints.saved()[-1]
            )
            return False
        self._evaluate(done)
        self._report()
        return True

    def cleanup(self) -> None:
        """Closes the progress bar and the metric loggers."""
        self._closing.close()

    @contextmanager
    def _saving_what_is_intact(self) -> Iterator[None]:
        """Saves a checkpoint before an error ends the run that leaves the policy's weights good."""
        try:
            yield
        except PolicyIntactError:
            # Not the number of steps that were yielded: the one that failed may have updated.
            done = self._machinery.lr_scheduler.last_epoch
            if done:
                try:
                    self._checkpoints.save(
                        self._resources.policy, self._resources.tokenizer, step=done
                    )
                    log.warning(
                        "the policy is intact; checkpoint: %s", self._checkpoints.saved()[-1]
                    )
                except StorageError as error:  # the first error is what ended the run
                    log.error("%s", error)
            raise

    def _describe(self, documents: Documents) -> None:
        parameters = sum(p.numel() for p in self._resources.policy.parameters())
        log.info(
            "%s of %s: %.1f M parameters, on %s in %s",
            self._options.method, self._options.model.path, parameters / 1e6,
            self._resources.device, self._options.model.precision,
        )  # fmt: skip
        if self._options.feature_map is not None and not self._options.uses_features:
            log.info("feature_map: not computed in training, for the reward uses no features")
        for name, part in (("train", documents.train), ("held-out", documents.held_out)):
            dropped = "; ".join(f"dropped {n:,} {why}" for why, n in part.dropped.items())
            log.info(
                "%s: %s documents%s", name, f"{len(part.documents):,}", dropped and f"; {dropped}"
            )
        log.info("evaluated on %d held-out documents", len(documents.evaluated))

    def _evaluate(self, steps_done: int) -> None:
        if not self._options.evaluation.evaluators:
            return
        log.info("evaluating after step %d …", steps_done)
        means = self._history.evaluate(self._resources.policy, steps_done)
        log.info(
            "after step %d: %s", steps_done, ", ".join(f"{k} {v:.4f}" for k, v in means.items())
        )
        self._watcher.log(means, steps_done)
        self._watcher.restart_clock()

    def _measure_gradients(self, step: Step) -> None:
        measured = measure_gradients(
            self._resources.policy, step.contexts, step.scored, self._options.objective,
            precision=self._resources.precision,
        )  # fmt: skip
        log.info("gradients: %s", ", ".join(f"{k} {v:.3g}" for k, v in measured.items()))
        self._watcher.log(measured, step.number + 1)

    def _report(self) -> None:
        self._closing.close()
        log.info("checkpoint: %s", self._checkpoints.saved()[-1])
        if self._options.evaluation.evaluators:
            plot_curves(self._history, self._watcher.history, self._output.picture)
            log.info("picture: %s", self._output.picture)
            self._watcher.show(summary_table(self._history))


def is_due(steps_done: int, every: int | None) -> bool:
    """Whether something that happens every so many steps (None: never) happens now."""
    return every is not None and steps_done % every == 0
