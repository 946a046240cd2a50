"""The output of a run: its summary, the progress bar, and the metric loggers."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ebft.console import Bar, show
from ebft.errors import UserError
from ebft.models.forward import slowdown
from ebft.printable import printable
from ebft.report.logged_tables import EVALUATION, ROLLOUTS, evaluation_rows, rollout_rows
from ebft.report.loggers import LoggedRun, MetricLogger, RunLogger
from ebft.report.rollouts_log import RolloutsLog
from ebft.report.tables import rollouts_table
from ebft.runs.setup import Documents
from ebft.training.parts import Step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedTokenizerBase

    from ebft.config.component import Component
    from ebft.evaluation.history import Evaluations
    from ebft.evaluation.measure import EvaluationSet
    from ebft.models.options import ModelOptions
    from ebft.parts.kinds import RewardPart
    from ebft.parts.part import Part, Resources
    from ebft.report.loggers.interface import Cell

SLOWER = 1.2
"""Times as long as in float32 from which a product in the model's precision is called slow: less
may be chance, or worth the memory."""
SHOWN = {
    "cfm": ("CFM", "{:.3f}"),
    "ce": ("CE", "{:.3f}"),
    "reward": ("reward", "{:+.2f}"),
    "alignment": ("align", "{:+.2f}"),
    "diversity": ("div", "{:+.2f}"),
    "grad_norm": ("grad", "{:.2f}"),
    "tokens_per_second": ("tok/s", "{:.0f}"),
    "memory_gib": ("mem", "{:.1f}G"),
}
"""The metrics in the progress bar: their labels and formats."""
BAR = "{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
"""Without the bar itself: 80 columns have room for a bar or for figures."""
LOG_EVERY = 10.0
"""Seconds between log lines about steps, without a terminal."""
LOG_WITHIN = 30.0
"""Seconds without a log line after which the stage of the current step is logged."""
REDRAW = 0.2
"""Least number of seconds between changes of the bar within a step."""

log = logging.getLogger("ebft")


def make_metric_loggers(components: Sequence[Component], run: LoggedRun) -> list[MetricLogger]:
    """Makes the metric loggers, and begins to log the run.

    If one cannot be made, closes the others and raises `UserError`.
    """
    loggers: list[MetricLogger] = []
    for i, component in enumerate(components):
        try:
            logger = component.instantiate()
            if isinstance(logger, RunLogger):
                logger.begin(run)
            loggers.append(logger)
        except Exception as error:  # services raise their own errors, e.g. without a key
            for made in loggers:
                made.close()
            what = error if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            raise UserError(
                f"metric_loggers.{i} = {component.path}: cannot be created ({what}); fix that, or "
                "leave it out"
            ) from error
    return loggers


class Progress:
    """Shows and logs the steps of a run as they are done."""

    def __init__(
        self,
        *,
        steps: int,
        label: str,
        loggers: Sequence[MetricLogger],
        tokenizer: PreTrainedTokenizerBase,
        show_rollouts_every: int | None,
        rollouts: RolloutsLog | None = None,
    ) -> None:
        self._rollouts = rollouts
        self._loggers, self._tokenizer = loggers, tokenizer
        self._every, self._label, self._steps = show_rollouts_every, label, steps
        # `disable=None` disables the bar without a terminal, where it would fill the log.
        self._bar = Bar(
            total=steps, desc=label, unit="step", dynamic_ncols=True, disable=None, bar_format=BAR
        )
        self._done, self._step_logged = 0, -LOG_EVERY
        self._logged = self._drawn = time.perf_counter()

    def start_at(self, steps_done: int) -> None:
        """Starts the count at the number of steps that a resumed run has done."""
        self._done = self._bar.initial = self._bar.n = steps_done
        self._bar.refresh()

    def announce(self, what: str) -> None:
        """Shows the next stage of the current step, so that a long step shows progress."""
        now = time.perf_counter()
        if self._bar.disable:
            if now - self._logged >= LOG_WITHIN:
                log.info("%s: step %d of %d: %s", self._label, self._done + 1, self._steps, what)
                self._logged = now
        elif now - self._drawn >= REDRAW:
            self._bar.set_description_str(f"{self._label}, {what}")
            self._drawn = now

    def step(self, step: Step, metrics: Mapping[str, float]) -> None:
        """Shows and logs the metrics of a completed step."""
        self._done = step.done
        self.log(metrics, step.done)
        # The terms of a reward are shown instead of their sum.
        left_out = {"reward"} if "alignment" in metrics else set()
        shown = {k: v for k, v in SHOWN.items() if k in metrics.keys() - left_out}
        figures = "  ".join(
            f"{label} {form.format(metrics[key])}" for key, (label, form) in shown.items()
        )
        self._bar.set_description_str(self._label, refresh=False)
        self._bar.set_postfix_str(figures)
        self._bar.update()
        self._drawn = time.perf_counter()
        if self._bar.disable:
            self._log_step(step.done, figures)
        due = self._every is not None and step.number % self._every == 0
        if step.scored is not None and due:
            title = f"step {step.done}: rollouts and their rewards"
            scored, tokenizer = step.scored, self._tokenizer
            show(rollouts_table(scored.rollouts, scored.reward(), tokenizer, title=title))
            rows = rollout_rows(scored.rollouts, scored.reward(), tokenizer)
            self._log_table("rollouts", ROLLOUTS, rows, step.done)
            if self._rollouts is not None:
                self._rollouts.log(step.done, scored)

    def _log_step(self, done: int, figures: str) -> None:
        now = time.perf_counter()
        if now - self._step_logged >= LOG_EVERY or done == self._steps:
            log.info("%s: step %d of %d  %s", self._label, done, self._steps, figures)
            self._logged = self._step_logged = now

    def log(self, metrics: Mapping[str, float], steps_done: int) -> None:
        """Passes metrics to every metric logger, with printable names."""
        shown = {printable(name): value for name, value in metrics.items()}
        for logger in self._loggers:
            logger.log_dict(shown, step=steps_done)

    def evaluation(self, evaluations: Evaluations, steps_done: int) -> None:
        """Logs the held-out figures of an evaluation, with their intervals if a logger has tables.

        The bounds of the 95 % intervals are called `name, low` and `name, high`.
        """
        self.log(evaluations.means(steps_done), steps_done)
        bounds = evaluations.bounds(steps_done)
        for logger in self._run_loggers():
            logger.log_dict({printable(name): it for name, it in bounds.items()}, step=steps_done)
        self._log_table("evaluation", EVALUATION, evaluation_rows(evaluations), steps_done)

    def _log_table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], step: int
    ) -> None:
        for logger in self._run_loggers():
            logger.log_table(name, columns, rows, step)

    def _run_loggers(self) -> list[RunLogger]:
        return [logger for logger in self._loggers if isinstance(logger, RunLogger)]

    def close(self) -> None:
        """Closes the bar and the loggers. Further calls do nothing."""
        self._bar.close()
        loggers, self._loggers = self._loggers, ()
        for logger in loggers:
            logger.close()


def log_model(method: str, model: ModelOptions, resources: Resources) -> None:
    """Logs the method, the size of the model, and where it is computed."""
    parameters = list(resources.policy.parameters())
    count, trained = (
        sum(p.numel() for p in some) / 1e6
        for some in (parameters, (p for p in parameters if p.requires_grad))
    )
    log.info(
        "%s of %s: %.1f M parameters%s, on %s in %s",
        method, model.name, count,
        "" if trained == count else f" of which {trained:.2f} M are trained",
        resources.device, model.precision,
    )  # fmt: skip
    if resources.device.type == "cpu" and resources.precision != torch.float32:
        factor = slowdown(resources.precision)
        if factor > SLOWER:
            log.warning(
                "model.precision = %s: this CPU takes %.1f times as long for a matrix product as "
                "in float32; model.precision=float32 is faster, and exact",
                model.precision, factor,
            )  # fmt: skip


def log_rollouts(sampler: Part | None, feature_map: Part | None, reward: RewardPart | None) -> None:
    """Warns of a sampler that biases the gradient, and says if a feature map is not computed."""
    claim = None if sampler is None else sampler.claim()
    if claim is not None and not claim.unbiased:
        log.warning("OFF-POLICY: sampler: %s, so the policy gradient is biased", claim.why)
    if feature_map is not None and (reward is None or not reward.uses_features()):
        log.info("feature_map: not computed in training, because the reward uses no features")


def log_documents(documents: Documents, sets: Sequence[EvaluationSet], *, per_step: int) -> None:
    """Logs how many documents there are in each split, and why others were dropped."""
    for name, part in {"train": documents.train, **documents.evaluated}.items():
        dropped = "; ".join(f"dropped {n:,} {why}" for why, n in part.dropped.items())
        log.info("%s: %s documents%s", name, f"{len(part.documents):,}", dropped and f"; {dropped}")
    count = len(documents.train.documents)
    if per_step > count:
        log.warning(
            "training.documents_per_step = %d: there are only %d documents to train on, so a step "
            "repeats some of them",
            per_step, count,
        )  # fmt: skip
    for one in sets:
        log.info("evaluated on %d %s documents", len(one.documents), one.name)
