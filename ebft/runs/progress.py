"""What a person sees of a run, and what is logged: description, progress bar, metric loggers."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ebft.console import Bar, show
from ebft.errors import UserError
from ebft.loggers import MetricLogger
from ebft.printable import printable
from ebft.report.tables import rollouts_table
from ebft.runs.options import FineTuneOptions
from ebft.runs.setup import Prepared
from ebft.training.parts import Step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType
    from transformers import PreTrainedTokenizerBase

    from ebft.config.component import Component

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
"""Which metrics the progress bar shows, as what, and how."""
BAR = "{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
"""Figures say more than a bar, and 80 columns have room for one of them."""
SAY_EVERY = 10.0
"""Seconds between lines about steps where there is no terminal."""
SAY_WITHIN = 30.0
"""Seconds without a line after which one says where in its step a run is."""
REDRAW = 0.2
"""Seconds between two changes of the bar within a step, at least: short steps are not worth it."""

log = logging.getLogger("ebft")


def make_metric_loggers(components: Sequence[Component]) -> list[MetricLogger]:
    """Raises `UserError` naming the logger that cannot be made, with those before it closed."""
    loggers: list[MetricLogger] = []
    for i, component in enumerate(components):
        try:
            loggers.append(component.instantiate())
        except Exception as error:  # services have errors of their own: no key, no network
            for logger in loggers:
                logger.close()
            what = error if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            raise UserError(
                f"metric_loggers.{i} = {component.path}: cannot be made ({what}); leave it out, or "
                "give it what it needs"
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
    ) -> None:
        self._loggers, self._tokenizer = loggers, tokenizer
        self._every, self._label, self._steps = show_rollouts_every, label, steps
        # `disable=None`: off a terminal, where a bar would be thousands of lines in one.
        self._bar = Bar(
            total=steps, desc=label, unit="step", dynamic_ncols=True, disable=None, bar_format=BAR
        )
        self._done, self._step_said = 0, -SAY_EVERY
        self._said = self._drawn = time.perf_counter()

    def start_at(self, steps_done: int) -> None:
        """Counts from the steps that an earlier process has done."""
        self._done = self._bar.initial = self._bar.n = steps_done
        self._bar.refresh()

    def announce(self, what: str) -> None:
        """Shows what the step in progress does next, so that a long one is seen to move."""
        now = time.perf_counter()
        if self._bar.disable:
            if now - self._said >= SAY_WITHIN:
                log.info("%s: step %d of %d: %s", self._label, self._done + 1, self._steps, what)
                self._said = now
        elif now - self._drawn >= REDRAW:
            self._bar.set_description_str(f"{self._label}, {what}")
            self._drawn = now

    def step(self, step: Step, metrics: Mapping[str, float]) -> None:
        """Shows and logs a step that is done."""
        self._done = step.done
        self.log(metrics, step.done)
        # A reward with parts is shown in its parts.
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
            self._say(step.done, figures)
        due = self._every is not None and step.number % self._every == 0
        if step.scored is not None and due:
            title = f"step {step.done}: rollouts and their rewards"
            scored, tokenizer = step.scored, self._tokenizer
            self.show(rollouts_table(scored.rollouts, scored.reward(), tokenizer, title=title))

    def _say(self, done: int, figures: str) -> None:
        now = time.perf_counter()
        if now - self._step_said >= SAY_EVERY or done == self._steps:
            log.info("%s: step %d of %d  %s", self._label, done, self._steps, figures)
            self._said = self._step_said = now

    def log(self, metrics: Mapping[str, float], steps_done: int) -> None:
        """Passes metrics on to every metric logger, which may print their names."""
        shown = {printable(name): value for name, value in metrics.items()}
        for logger in self._loggers:
            logger.log_dict(shown, step=steps_done)

    def show(self, what: RenderableType) -> None:
        """Prints beside the progress bar."""
        show(what)

    def close(self) -> None:
        """Closes the bar and the loggers, once."""
        self._bar.close()
        loggers, self._loggers = self._loggers, ()
        for logger in loggers:
            logger.close()


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
