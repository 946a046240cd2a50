"""Measurements during a run: held-out figures, the noise of gradients, and the final summary."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from time import perf_counter

from ebft.console import show
from ebft.errors import UserError, suggest
from ebft.evaluation.history import History
from ebft.evaluation.measure import EvaluationSet, measure
from ebft.evaluation.options import RunEvaluationOptions
from ebft.evaluation.start_cache import Remembered
from ebft.files import write_whole
from ebft.models.whole import kept_whole
from ebft.parts.measurements import Measurement
from ebft.report.curves import plot_curves, plot_lengths
from ebft.report.style import png
from ebft.report.tables import summary_table
from ebft.rollout.records import Contexts, Scored
from ebft.runs.folder import OutputFolder
from ebft.runs.options import StepOptions
from ebft.runs.progress import Progress
from ebft.training.gradients import measure_gradients
from ebft.training.parts import LoopParts, Observer

log = logging.getLogger("ebft")


class Measuring(Observer):
    """Takes the measurements that the recipe asks for, adds them to `history` and shows them.

    `remembered` may hold the measurements before the first step, from an earlier run.
    """

    def __init__(
        self,
        loop: LoopParts,
        sets: Sequence[EvaluationSet],
        history: History,
        progress: Progress,
        remembered: Remembered | None,
        *,
        evaluation: RunEvaluationOptions,
        training: StepOptions,
        best: str | None,
    ) -> None:
        self._evaluation, self._training, self._best = evaluation, training, best
        self._loop, self._sets = loop, sets
        self._history, self._progress, self._remembered = history, progress, remembered
        self.seconds_within_steps = 0.0
        """Seconds of measuring gradients so far, which do not count as the time of a step."""

    def begin(self, done: int) -> None:
        """Measures before the first step, or what was due when the run was stopped.

        Raises `UserError` if `checkpoint.best` is not one of the measurements.
        """
        if not self._history or (self.due(done) and done not in self._history):
            self.held_out(done)
        best = self._best
        names = list(self._history.first) if self._history else []
        if best is not None and best not in names:
            raise UserError(
                f"checkpoint.best = {best}: no evaluator measures that{suggest(best, names)}"
            )

    def announce(self, what: str) -> None:
        self._progress.announce(what)

    def before_update(self, step: int, contexts: Contexts, scored: Scored | None) -> None:
        """Measures the size and the noise of the gradient's terms, if that is due.

        It is done before the update; after it the policy would have learned from these documents.
        """
        done, began = step + 1, perf_counter()
        if not is_due(done, self._training.measure_gradients_every):
            return
        self._progress.announce("measuring gradients")
        measured = measure_gradients(
            self._loop.policy, contexts, scored, self._loop.objective,
            precision=self._loop.precision,
            gradient_checkpointing=self._training.gradient_checkpointing,
            processes=self._loop.processes,
        )  # fmt: skip
        log.info("gradients: %s", ", ".join(f"{k} {v:.3g}" for k, v in measured.items()))
        self._progress.log(measured, done)
        self.seconds_within_steps += perf_counter() - began

    def due(self, done: int) -> bool:
        """Whether held-out figures are due after `done` steps."""
        return done == self._training.steps or is_due(done, self._evaluation.every)

    def held_out(self, done: int) -> None:
        """Measures and logs the held-out figures after `done` steps."""
        if not self._evaluation.anything():
            return
        log.info("evaluating after step %d …", done)
        remembered = self._remembered if done == 0 else None
        measured = None if remembered is None else remembered.recall()
        if measured is None:
            measured = self._measure(done)
            if remembered is not None:
                remembered.keep(measured)
        self._history.add(done, measured)
        means = self._history.means(done)
        log.info("after step %d: %s", done, ", ".join(f"{k} {v:.4f}" for k, v in means.items()))
        self._progress.evaluation(self._history, done)

    def _measure(self, done: int) -> dict[str, Measurement]:
        m = self._loop
        with kept_whole():  # so that processes can measure independently
            return measure(
                m.policy, self._sets,
                micro_batch=m.micro_batch, processes=m.processes, steps_done=done,
            )  # fmt: skip

    def report(self, output: OutputFolder, metrics: Sequence[Mapping[str, float]]) -> None:
        """Writes the pictures and prints the summary; `metrics` are those of the steps."""
        if not self._evaluation.anything():
            return
        write_whole(output.picture, png(plot_curves(self._history, metrics)))
        log.info("picture: %s", output.picture)
        if plot_lengths(self._history, output.lengths):
            log.info("picture: %s", output.lengths)
        show(summary_table(self._history))


def is_due(steps_done: int, every: int | None) -> bool:
    """Whether something that happens every `every` steps (None: never) is due now."""
    return every is not None and steps_done % every == 0
