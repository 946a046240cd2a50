"""The job of a study file: its runs one after another, then the report."""

from __future__ import annotations

import logging
import shutil
import signal
import time
from collections.abc import Sequence
from statistics import mean
from typing import ClassVar

from filelock import Timeout

from ebft.config.dump import resolved_yaml
from ebft.config.recipe import Job
from ebft.console import Bar
from ebft.errors import RunsFailedError, UserError
from ebft.files import write_whole
from ebft.printable import printable
from ebft.report.surroundings import command_line
from ebft.runs.signals import TERMINATED, StopRequest, stop_child_on_signals
from ebft.study.arms import factors
from ebft.study.contents import Description, Result, StudyPlan
from ebft.study.folder import RunFolder, StudyFolder
from ebft.study.options import StudyOptions
from ebft.study.plan import Run, find_problems, missing_of, plan_arms, plan_runs
from ebft.study.process import OutOfTimeError, run_in_process
from ebft.study.worker import HELD_ELSEWHERE, STOPPED

log = logging.getLogger("ebft")

WAIT = 5.0
"""Seconds between checks of runs that other processes have locked."""
OUT_OF_BUDGET = 75
"""Exit status when `budget.minutes` is spent. (EX_TEMPFAIL of sysexits.h)"""
STOPPED_BY = {
    STOPPED: signal.SIGINT, -signal.SIGINT: signal.SIGINT,
    TERMINATED: signal.SIGTERM, -signal.SIGTERM: signal.SIGTERM,
}  # fmt: skip
"""The signal that stopped a run, by the exit status of its process."""
CONTINUE = "run the same command to continue"


class Study(Job[StudyOptions]):
    """Runs a study, except its runs that are already complete."""

    schema: ClassVar[type[StudyOptions]] = StudyOptions

    def problems(self) -> list[str]:
        """The problems of the study and of each of its runs."""
        return find_problems(self.options)

    def missing(self) -> list[str]:
        return missing_of(plan_arms(self.options))

    def estimate(self) -> str:
        from ebft.study.dry_run import estimate_table

        return estimate_table(self.options)

    def _set_up(self) -> None:
        """Plans the runs and writes their recipes, each in its folder."""
        self._folder = StudyFolder(self.options.output_dir)
        self._runs = plan_runs(self.options)
        self._starts = {run.start.name for run in self._runs if run.start is not None}
        self._check_needs()
        try:
            for run in self._runs:
                self._prepare(run)
            self._folder.write_plan(self._plan())
        except OSError as error:
            raise UserError(
                f"output_dir = {self._folder.path}: cannot be written: {error.strerror}"
            ) from error
        try:
            _is_held(self._at(self._runs[0]))
        except OSError as error:
            raise UserError(
                f"output_dir = {self._folder.path}: its files cannot be locked ({error.strerror}), "
                "so two processes could start the same run; choose another file system"
            ) from error
        if self.options.retry_failed:
            for run in self._runs:
                result = self._at(run).result()
                if result is not None and not result.done:
                    self._at(run).delete_result()

    def run(self) -> bool:
        """Runs the remaining runs; Ctrl-C and SIGTERM stop the current run.

        Raises `UserError` if the folder cannot be written or this machine lacks something that the
        runs need, and `RunsFailedError` at the end if runs failed. Raises `SystemExit` after
        SIGTERM, with its exit status, and with status 75 if `budget.minutes` is spent before all
        runs are complete.
        """
        from ebft.study.report.make import write_report

        self._set_up()
        pending = [run for run in self._runs if self._at(run).result() is None]
        log.info("%d runs, %d of them already done", len(self._runs), len(self._done()))
        with (
            stop_child_on_signals(f"stopping the current run; {CONTINUE}") as stop,
            Bar(
                total=len(self._runs), desc="runs", unit="run", dynamic_ncols=True, disable=None
            ) as bar,
        ):
            bar.update(len(self._runs) - len(pending))
            finished = self._run_all(pending, stop, bar)
        self._drop_starts()
        if stop.signal == signal.SIGTERM:  # no time for a report
            raise SystemExit(TERMINATED)
        if self._done():
            log.info("report: %s", write_report(self._folder.path))
        if stop:
            return False
        if failed := self._failures():
            raise RunsFailedError(f"{len(failed)} of {len(self._runs)} runs failed:", *failed)
        if not finished:
            raise SystemExit(OUT_OF_BUDGET)
        return True

    def _run_all(self, pending: Sequence[Run], stop: StopRequest, bar: Bar) -> bool:
        began, waiting = time.monotonic(), list(pending)
        while waiting:
            held = []
            for run in waiting:
                if self._out_of_budget(time.monotonic() - began):
                    log.warning("budget.minutes is spent; %s", CONTINUE)
                    return False
                if not self._has_its_start(run) or not self._run_one(run, stop, bar):
                    held.append(run)
                if stop:
                    return False
            waiting = held
            if held:
                bar.set_postfix_str(f"waiting for {len(held)} runs of other processes")
                time.sleep(WAIT)
                if stop:
                    return False
        bar.set_postfix_str("")
        return True

    def _has_its_start(self, run: Run) -> bool:
        """Whether the run whose trained model it starts from has ended. If that failed, so has this
        run."""
        if run.start is None or self._at(run).result() is not None:
            return True
        result = self._at(run.start).result()
        if result is not None and not result.done:
            reason = f"{run.start.name}, whose trained model it starts from, failed"
            self._at(run).write_result(Result(status="failed", error=reason, seconds=0.0))
        return result is not None

    def _drop_starts(self) -> None:
        """Deletes the checkpoints that no remaining run starts from."""
        if self.options.keep_checkpoints:
            return
        needed = {
            run.start.name
            for run in self._runs
            if run.start is not None
            and ((result := self._at(run).result()) is None or not result.done)
        }
        for run in self._runs:
            if run.name not in needed and self._at(run).result() is not None:
                shutil.rmtree(self._at(run).checkpoints, ignore_errors=True)

    def _run_one(self, run: Run, stop: StopRequest, bar: Bar) -> bool:
        """Whether the run has ended, here or in another process; False if another process is still
        running it, or if it was stopped."""
        folder = self._at(run)
        if folder.result() is None:
            self._attempt(run, stop, bar)
        if (result := folder.result()) is None:
            return False
        if result.error is not None:
            log.error("%s: failed: %s", run.name, _first_line(result.error))
        elif bar.disable:
            log.info("%s: done, in %.0f minutes", run.name, result.seconds / 60)
        bar.update()
        return True

    def _attempt(self, run: Run, stop: StopRequest, bar: Bar) -> None:
        folder, limit = self._at(run), self.options.budget.minutes_per_run
        if _is_held(folder):
            return
        began = time.monotonic()
        try:
            status = run_in_process(
                folder,
                stop=stop,
                seconds=None if limit is None else limit * 60,
                watch=lambda: _show(bar, run, folder),
            )
        except OutOfTimeError:
            reason = f"stopped after {limit:g} minutes (budget.minutes_per_run)"
        else:
            if stop or status == HELD_ELSEWHERE:
                return
            if status in STOPPED_BY:  # the signal was sent to the run's process only
                stop.signal = STOPPED_BY[status]
                log.warning(
                    "%s: %s has stopped its process, so the study stops; %s",
                    run.name, stop.signal.name, CONTINUE,
                )  # fmt: skip
                return
            reason = f"its process ended with {_exit(status)}; see {folder.log}"
        if folder.result() is None:
            seconds = time.monotonic() - began
            folder.write_result(Result(status="failed", error=reason, seconds=seconds))

    def _out_of_budget(self, elapsed: float) -> bool:
        minutes = self.options.budget.minutes
        took = [result.seconds for result in self._done()]
        expected = mean(took) if took else 0.0
        return minutes is not None and elapsed + expected > minutes * 60

    def _check_needs(self) -> None:
        """Raises `UserError` if this machine lacks something that a remaining run needs."""
        again = self.options.retry_failed
        left = [
            run.arm
            for run in self._runs
            if (result := self._at(run).result()) is None or (again and not result.done)
        ]
        if missing := missing_of(left):
            raise UserError(*(f"{self.source}: in its runs: {line}" for line in missing))

    def _prepare(self, run: Run) -> None:
        folder = self._at(run)
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.check()
        start = None if run.start is None else self._at(run.start).trained(run.start.arm.steps)
        if not folder.recipe.exists():
            recipe = run.arm.recipe(
                seed=run.seed, output_dir=folder.output, remember=self._folder.remembered,
                start=start,
            )  # fmt: skip
            write_whole(folder.recipe, resolved_yaml(recipe.options, recipe.registry))
        try:
            tflop = run.arm.tflop()
        except ValueError:  # a model whose shape is not known here; the report leaves FLOPs out
            tflop = None
        folder.write_description(
            Description(
                arms=[arm.name for arm in run.arm.arms],
                seed=run.seed,
                steps=run.arm.steps,
                tflop=tflop,
                keep_checkpoints=self.options.keep_checkpoints or run.name in self._starts,
                starts_from=None if run.start is None else run.start.name,
                processes=self.options.processes,
            )
        )

    def _plan(self) -> StudyPlan:
        return StudyPlan(
            title=printable(self.source.stem),
            command=command_line(),
            study=resolved_yaml(self.options, self.registry),
            reference=self.options.reference or self._runs[0].arm.label,
            factors=factors(self.options),
            runs=[run.name for run in self._runs],
            reported=self.options.reported,
            note=printable(self.options.note),
        )

    def _at(self, run: Run) -> RunFolder:
        return self._folder.run(run.name)

    def _done(self) -> list[Result]:
        results = [self._at(run).result() for run in self._runs]
        return [result for result in results if result is not None and result.done]

    def _failures(self) -> list[str]:
        found = []
        for run in self._runs:
            result = self._at(run).result()
            if result is not None and result.error is not None:
                found.append(f"  {run.name}: {_first_line(result.error)}")
        return found


def _is_held(folder: RunFolder) -> bool:
    """Whether a process is running it now."""
    try:
        with folder.lock():
            return False
    except Timeout:
        return True


def _show(bar: Bar, run: Run, folder: RunFolder) -> None:
    done = max((line.step for line in folder.steps()), default=0)
    bar.set_postfix_str(f"{run.arm.label}, seed {run.seed}: step {done}/{run.arm.steps}")


def _exit(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else ""
