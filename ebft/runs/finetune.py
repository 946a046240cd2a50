"""The run of recipe `finetune`: set up, measure, train, measure again, report."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from pathlib import Path
from signal import SIGTERM
from time import perf_counter
from typing import Self

from transformers import set_seed

from ebft.checkpoints.checkpointer import Checkpointer
from ebft.checkpoints.folder import Checkpoints
from ebft.checkpoints.publisher import Publisher
from ebft.checkpoints.room import least_size
from ebft.checkpoints.state import named_parts
from ebft.config.about import About
from ebft.config.dump import as_yaml, plain_options
from ebft.distributed.parallel import join
from ebft.distributed.processes import Launch, Processes
from ebft.errors import UserError
from ebft.evaluation.history import History
from ebft.evaluation.start_cache import remembered
from ebft.models.options import resolve_device
from ebft.parts.registry import Registry
from ebft.report.card import base_name, model_card
from ebft.report.loggers import LoggedRun, MetricLogger
from ebft.report.rollouts_log import RolloutsLog
from ebft.report.surroundings import Started
from ebft.runs.checks import problems_in
from ebft.runs.failures import blame, named_evaluators, saving_last_step
from ebft.runs.folder import OutputFolder, Start
from ebft.runs.measuring import Measuring, is_due
from ebft.runs.memory import Halving
from ebft.runs.metrics_log import MetricsLog
from ebft.runs.options import FineTuneOptions
from ebft.runs.page import PageWriter
from ebft.runs.progress import (
    Progress,
    log_documents,
    log_model,
    log_rollouts,
    make_metric_loggers,
)
from ebft.runs.setup import prepare
from ebft.runs.signals import TERMINATED, StopRequest, stop_on_signals
from ebft.training.loop import train
from ebft.training.metrics import step_metrics
from ebft.training.parts import LoopParts, Observer, Step

log = logging.getLogger("ebft")


class FineTuning:
    """A fine-tuning run, as a context manager: entering it sets the run up; leaving it closes the
    loggers and releases the output folder.

    Entering raises `UserError` for a model, data or an output folder that cannot be used. `train`
    raises `NumericalError`, `StorageError`, `MemoryShortError` and the errors of parts, and saves a
    checkpoint first if the policy is intact. With several processes, each has its share of the
    documents and its shard of the weights, and the main process writes and prints.
    """

    def __init__(self, options: FineTuneOptions, registry: Registry, *, source: Path) -> None:
        self._options, self._registry, self._source = options, registry, source
        self._output = OutputFolder(options.output_dir)

    def __enter__(self) -> Self:
        """Loads the model and the data, builds the parts and locks the output folder."""
        with ExitStack() as opened:
            self._set_up(opened)
            self._closing = opened.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        self._closing.close()

    def _set_up(self, opened: ExitStack) -> None:
        options, registry, output = self._options, self._registry, self._output
        recipe, checkpoint = plain_options(options, registry), options.checkpoint
        checkpoints = Checkpoints(output.checkpoints, keep=checkpoint.keep, best=checkpoint.best_is)
        self._processes = processes = self._join()
        hub = checkpoint.hub if processes.is_main else None
        missing = [*options.missing_for_parts(), *(() if hub is None else hub.missing())]
        if missing:
            raise UserError(*missing)
        folder = None
        if processes.is_main:
            locked = output.locked(overwrite=options.overwrite)
            folder = opened.enter_context(locked)
        self._start = start = Start(options, recipe, folder, checkpoints, processes)
        self._publisher = Publisher(hub, checkpoints, output.uploaded)
        self._publisher.check_access()
        self.prepared = prepared = prepare(options, start, processes)
        loop, digests = prepared.loop, prepared.digests
        known = remembered(
            options.evaluation, registry, digests,
            model=options.model, seed=options.seed, processes=processes,
        )  # fmt: skip
        state = None if start.resumed is None else start.resumed.restore_loop(loop)
        if processes.is_main:
            policy, optimizer = prepared.resources.policy, loop.optimizer
            start.check_room(least_size(policy, optimizer, merge_adapter=checkpoint.merge_adapter))
        run = LoggedRun(start.run_id, output.path.absolute().name, recipe)
        self._progress = progress = self._show_progress(opened, run)
        # Last: if restoring the state or making a logger fails, nothing is deleted.
        start.take(as_yaml(recipe))
        self._page = None
        if processes.is_main:
            started = Started.now(f"{options.method} of {base_name(recipe['model'])}")
            started.append_to(output.environment)
            self._page = PageWriter(output.path)

        self._metrics = list[dict[str, float]]()
        history = History(prepared.sets, output.evaluations, processes=processes)
        self._checkpointer = Checkpointer(
            checkpoints, loop, prepared.resources.tokenizer,
            partial(About, recipe=recipe, digests=digests),
            partial(
                model_card, method=options.method,
                adapter=options.model.lora is not None and not checkpoint.merge_adapter,
            ),
            metrics=self._metrics, history=history,
            best=checkpoint.best, merge_adapter=checkpoint.merge_adapter,
        )  # fmt: skip
        opened.callback(self._publisher.stop)
        self._measuring = Measuring(
            loop, prepared.sets, history, progress, known,
            evaluation=options.evaluation, training=options.training, best=checkpoint.best,
        )  # fmt: skip
        if start.resumed is not None and state is not None:
            self._checkpointer.restore(start.resumed, state, digests)
            progress.start_at(start.step)
        log_model(options.method, options.model, prepared.resources)
        log.info("memory: %s", prepared.budget.describe(loop.micro_batch.documents))
        log_rollouts(options.sampler, options.feature_map, options.reward)
        per_step = options.training.documents_per_step
        log_documents(prepared.documents, prepared.sets, per_step=per_step)

    def _join(self) -> Processes:
        """Joins the other processes, if there are any, after checking the recipe for them."""
        options, launch = self._options, Launch.of_environment()
        problems = problems_in(launch.size, options)
        if lines := [f"{self._source}: {problem}" for problem in problems]:
            raise UserError(*lines)
        set_seed(options.seed)
        return join(launch, options.parallel, resolve_device(options.model.device))

    def _show_progress(self, opened: ExitStack, run: LoggedRun) -> Progress:
        options, loggers, rollouts = self._options, list[MetricLogger](), None
        tokenizer = self.prepared.resources.tokenizer
        if self._processes.is_main:
            own = MetricsLog(self._output.metrics)
            loggers = [own, *make_metric_loggers(options.metric_loggers, run)]
            rollouts = RolloutsLog(self._output.rollouts, tokenizer)
        progress = Progress(
            steps=options.training.steps,
            loggers=loggers,
            label=options.method,
            tokenizer=tokenizer,
            show_rollouts_every=options.training.show_rollouts_every,
            rollouts=rollouts,
        )
        opened.callback(progress.close)
        return progress

    def train(self) -> bool:
        """Runs the steps. Returns True if all are done.

        Ctrl-C, SIGTERM and a closed terminal stop the run with a checkpoint. After the last two it
        raises `SystemExit` with the exit status of SIGTERM.
        """
        options, loop, processes = self._options, self.prepared.loop, self._processes
        checkpointer, measuring = self._checkpointer, self._measuring
        halving = Halving(loop, checkpointer, self.prepared.budget)
        done, last = self._start.step, options.training.steps
        try:
            halving(lambda: measuring.begin(done))
        except KeyboardInterrupt:
            log.warning(
                "stopped while measuring, before a step was done; %s", checkpointer.newest()
            )
            raise
        self._update_page()
        if done == last:
            self._publisher.saved(checkpointer.save(done), is_last=True)

        with (
            stop_on_signals(grace=options.checkpoint.grace, at_rest=checkpointer.at_rest) as stop,
            saving_last_step(checkpointer, blame=self._blame, memory_short=halving.memory_short),
        ):
            steps = train_halving(loop, range(done, last), halving, measuring)
            stopping = processes.any(bool(stop))
            while done < last and not stopping:
                began, measured = perf_counter(), measuring.seconds_within_steps
                with self._interruptible(stop):
                    step = next(steps)
                seconds = perf_counter() - began - (measuring.seconds_within_steps - measured)
                done = step.done
                checkpointer.step_done(done)
                metrics = step_metrics(step, seconds=seconds, processes=processes)
                self._metrics.append(metrics)
                self._progress.step(step, metrics)
                # Before the checkpoint, which holds the figures up to its step.
                if measuring.due(done) and not processes.any(bool(stop)):
                    with self._interruptible(stop):
                        measuring.held_out(done)
                    if done < last:
                        self._update_page()
                stopping = processes.any(bool(stop))
                if stopping or done == last or is_due(done, options.checkpoint.every):
                    saved = checkpointer.save(done)
                    if done == last or not stopping:  # when stopping there may be no time
                        self._publisher.saved(saved, is_last=done == last)
                self._publisher.poll()
        processes.close()
        page = None if self._page is None else self._page.write()
        if stop:
            log.warning("stopped after step %d; %s", done, checkpointer.newest())
            if stop.signal == SIGTERM:
                raise SystemExit(TERMINATED)
            return False
        if stopping and done < last:
            return False  # another process received the signal
        self._progress.close()
        if processes.is_main:
            log.info("%s", checkpointer.newest())
            measuring.report(self._output, self._metrics)
        if page is not None:
            log.info("page: %s", page)
        self._publisher.finish()
        return True

    def _update_page(self) -> None:
        if self._page is not None:
            self._page.update()

    def _interruptible(self, stop: StopRequest) -> AbstractContextManager[None]:
        """What SIGTERM may interrupt: with several processes nothing, as the others would hang."""
        return stop.interruptible() if self._processes.size == 1 else nullcontext()

    def _blame(self, error: Exception) -> str:
        parts, built = self._options.parts(), named_parts(self.prepared.loop)
        paired = {key: (parts[key], built[key]) for key in parts.keys() & built.keys()}
        paired |= named_evaluators(self._options.evaluation, self.prepared.sets)
        return blame(error, paired, self._registry, f"after {self._checkpointer.done} steps")


def train_halving(
    loop: LoopParts, steps: range, halving: Halving, observer: Observer
) -> Iterator[Step]:
    """Calls `train`; if its first step runs out of memory, the micro-batch is halved."""
    if steps:
        yield halving(lambda: next(train(loop, steps[:1], observer)))
    yield from train(loop, steps[1:], observer)
