"""Recipe `finetune`: set up, measure, train, measure again, report."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from ebft.checkpoints.digests import digest_documents, digest_weights
from ebft.checkpoints.folder import Checkpoints
from ebft.checkpoints.resume import AUTO, Resumption, find_resumption
from ebft.checkpoints.snapshot import About, Snapshot
from ebft.checkpoints.state import gather_state
from ebft.config.dump import plain_options, resolved_yaml
from ebft.config.located import suggest
from ebft.errors import PolicyIntactError, StorageError, UserError
from ebft.evaluation.history import History
from ebft.models.probe import probe_tree
from ebft.plugins import Registry
from ebft.report.curves import plot_curves
from ebft.report.lengths import plot_lengths
from ebft.report.summary import summary_table
from ebft.training.disk_logs import cut_disk_logs
from ebft.training.gradients import measure_gradients
from ebft.training.interrupt import stop_on_interrupt
from ebft.training.loop import Step, train
from ebft.training.options import FineTuneOptions
from ebft.training.output import OutputFolder
from ebft.training.setup import (
    Documents,
    make_documents,
    make_evaluation_sets,
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
        self._recipe = plain_options(options, registry)
        self._output = OutputFolder(options.output_dir, overwrite=options.overwrite)
        self._checkpoints = Checkpoints(
            self._output.checkpoints, keep=options.checkpoint.keep, best=options.checkpoint.best_is
        )
        self._closing = ExitStack()

    def setup(self) -> None:
        """Loads the model and the data, builds the parts and claims the output folder."""
        # torchtune takes seconds to import; a mistake in the recipe is found before that.
        from torchtune.training import set_seed

        options = self._options
        resumed = self._find_resumption()
        set_seed(options.seed)
        self._resources = make_resources(options)
        digests = {"base": digest_weights(self._resources.policy)}
        if resumed is not None:
            resumed.load_weights(self._resources.policy)
        documents = make_documents(options, self._resources)
        self._sets = make_evaluation_sets(options, self._resources, documents.evaluated)
        digests["train"] = digest_documents(documents.train.documents)
        evaluated = [document for one in self._sets for document in one.documents]
        digests["held_out"] = digest_documents(evaluated)
        if resumed is not None:
            resumed.check_digests(digests)
        self._about = partial(About, recipe=self._recipe, digests=digests)
        self._machinery = make_machinery(options, self._resources, documents.train.documents)
        gap = probe_tree(self._resources.policy, documents.train.documents, self._machinery.plan)
        log.info("a tree equals independent rows: log-probs differ by at most %.1g nats", gap)
        self._history = History(
            self._sets, self._output.evaluations, micro_batch=options.training.micro_batch
        )
        in_place = resumed is not None and self._checkpoints.holds(resumed.folder)
        self._output.claim(resolved_yaml(options, self._registry), resume=in_place)
        if in_place:
            cut_disk_logs(options.metric_loggers, after=self._start)
        self._watcher = Watcher(
            steps=options.training.steps,
            loggers=[logger.instantiate() for logger in options.metric_loggers],
            label=options.method,
            tokenizer=self._resources.tokenizer,
            show_rollouts_every=options.training.show_rollouts_every,
        )
        self._closing.callback(self._watcher.close)
        if resumed is not None:
            self._restore(resumed, digests)
        self._describe(documents)

    def run(self) -> bool:
        """Runs the steps; Ctrl-C stops after the one in progress with a checkpoint saved."""
        options, steps = self._options, self._options.training.steps
        done = self._start
        if not self._history or (self._evaluation_due(done) and done not in self._history):
            self._evaluate(done)
        self._check_best()
        if done == steps:
            self._save(done)
        with stop_on_interrupt() as stop, self._saving_what_is_intact():
            for step in train(self._machinery, range(self._start, steps)):
                done = step.number + 1
                self._watcher.step(step)
                if is_due(done, options.training.measure_gradients_every):
                    self._measure_gradients(step)
                # Before the checkpoint, which has all figures up to its step.
                if self._evaluation_due(done) and (done == steps or not stop):
                    self._evaluate(done)
                if stop or done == steps or is_due(done, options.checkpoint.every):
                    self._save(done)
                if stop:
                    break
                self._watcher.restart_clock()
        if done < steps:
            log.warning(
                "stopped after step %d; checkpoint: %s", done, self._checkpoints.saved()[-1]
            )
            return False
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
                    self._save(done)
                    log.warning(
                        "the policy is intact; checkpoint: %s", self._checkpoints.saved()[-1]
                    )
                except StorageError as error:  # the first error is what ended the run
                    log.error("%s", error)
            raise

    def _find_resumption(self) -> Resumption | None:
        """The checkpoint to go on from, when the output folder may be used."""
        wanted = self._options.checkpoint
        resumed = find_resumption(
            wanted.resume,
            self._checkpoints,
            self._recipe,
            may_differ=wanted.may_differ,
            overwrite=self._options.overwrite,
        )
        self._start = 0 if resumed is None else resumed.step
        in_place = resumed is not None and self._checkpoints.holds(resumed.folder)
        self._output.check(resume=in_place or wanted.resume == AUTO)
        self._checkpoints.clear_partial()
        return resumed

    def _restore(self, resumed: Resumption, digests: Mapping[str, str]) -> None:
        state = resumed.restore(self._machinery)
        self._watcher.resume(state["metrics"], steps_done=resumed.step)
        if resumed.same_evaluation(digests):
            self._history.load_state_dict(state["history"])
        else:
            log.warning(
                "other held-out measurements than before: `before` is now step %d", self._start
            )

    def _save(self, done: int) -> None:
        state = {
            **gather_state(self._machinery),
            "metrics": self._watcher.history,
            "history": self._history.state_dict(),
        }
        snapshot = Snapshot(
            self._resources.policy, self._resources.tokenizer, self._about(done), state
        )
        best = self._options.checkpoint.best
        scores = {} if best is None else self._history.scores(best)
        self._checkpoints.save(snapshot, step=done, scores=scores)

    def _check_best(self) -> None:
        """Raises `UserError` if `checkpoint.best` is not among the measurements."""
        best = self._options.checkpoint.best
        names = list(self._history.first) if self._history else []
        if best is not None and best not in names:
            raise UserError(
                f"checkpoint.best = {best}: no evaluator measures that{suggest(best, names)}"
            )

    def _evaluation_due(self, done: int) -> bool:
        return done == self._options.training.steps or is_due(done, self._options.evaluation.every)

    def _describe(self, documents: Documents) -> None:
        parameters = sum(p.numel() for p in self._resources.policy.parameters())
        log.info(
            "%s of %s: %.1f M parameters, on %s in %s",
            self._options.method, self._options.model.path, parameters / 1e6,
            self._resources.device, self._options.model.precision,
        )  # fmt: skip
        if self._options.feature_map is not None and not self._options.uses_features:
            log.info("feature_map: not computed in training, for the reward uses no features")
        for name, part in {"train": documents.train, **documents.evaluated}.items():
            dropped = "; ".join(f"dropped {n:,} {why}" for why, n in part.dropped.items())
            log.info(
                "%s: %s documents%s", name, f"{len(part.documents):,}", dropped and f"; {dropped}"
            )
        for one in self._sets:
            log.info("evaluated on %d %s documents", len(one.documents), one.name)

    def _evaluate(self, steps_done: int) -> None:
        if not self._options.evaluation.anything():
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
        if self._options.evaluation.anything():
            plot_curves(self._history, self._watcher.history, self._output.picture)
            log.info("picture: %s", self._output.picture)
            if plot_lengths(self._history, self._output.lengths):
                log.info("picture: %s", self._output.lengths)
            self._watcher.show(summary_table(self._history))


def is_due(steps_done: int, every: int | None) -> bool:
    """Whether something that happens every so many steps (None: never) happens now."""
    return every is not None and steps_done % every == 0
