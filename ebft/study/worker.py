"""One run of a study, in a process of its own: `python -m ebft.study.worker FOLDER`.

It holds the run's lock as long as it lives, writes how the run ended, and ends when the process
that started it does (its standard input closes then).
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

from filelock import Timeout

from ebft.study.contents import Result
from ebft.study.folder import RunFolder

HELD_ELSEWHERE = 75
"""Exit status when another process has the run. (EX_TEMPFAIL of sysexits.h)"""
STOPPED = 130


def work(run: RunFolder) -> int:
    """Runs the recipe of a run's folder. 0 done, 1 failed, 75 held elsewhere, 130 stopped."""
    try:
        with run.lock():
            if run.result() is None:
                return _run(run)
            _drop_checkpoints(run)  # it may have ended before it had done so
            return 0
    except Timeout:
        return HELD_ELSEWHERE


def _run(run: RunFolder) -> int:
    from ebft.console import prepare_process
    from ebft.errors import EXPLAINED

    prepare_process(sys.stderr)
    began = time.time()
    try:
        if not _finish(run):
            return STOPPED
    except KeyboardInterrupt:
        return STOPPED
    except EXPLAINED as error:
        reason = str(error)
    except Exception as error:  # a bug in a plug-in or in ebft: this run's end, not the study's
        logging.getLogger("ebft").error("%s", error, exc_info=True)
        reason = f"{type(error).__name__}: {error}"
    else:
        # First of all: without a result, and without checkpoints, all would be done again.
        run.write_result(_result(began, error=None))
        _drop_checkpoints(run)
        return 0
    for line in f"error: {reason}".split("\n"):
        logging.getLogger("ebft").error("%s", line)
    run.write_result(_result(began, error=reason))
    return 1


def _drop_checkpoints(run: RunFolder) -> None:
    result, description = run.result(), run.description()
    assert description is not None, "it is written before the run begins"
    if result is not None and result.done and not description.keep_checkpoints:
        shutil.rmtree(run.checkpoints, ignore_errors=True)


def _finish(run: RunFolder) -> bool:
    from ebft.config.load import load_recipe
    from ebft.config.overrides import override
    from ebft.runs.jobs import run_job

    here = {
        # From its newest whole checkpoint; from the beginning if there is none at all.
        "checkpoint.resume": "auto",
        # Where this folder is now: it may have been moved since the recipe was written.
        "output_dir": str(run.output),
        "evaluation.remember": str(run.study.remembered),
        # A run that was planned before every run had its metrics.jsonl names a class that is gone.
        "metric_loggers": [],
    }
    origin = "the study's worker"
    overrides = [override(key, value, origin=origin) for key, value in here.items()]
    return run_job(load_recipe(run.recipe, overrides).job)


def _result(began: float, *, error: str | None) -> Result:
    from ebft.study.surroundings import surroundings

    return Result(seconds=time.time() - began, error=error, surroundings=surroundings())


def _end_with_parent() -> None:
    # Not sys.stdin: a thread that waits in its buffer would abort the interpreter on its way out.
    while os.read(0, 1):
        pass
    logging.getLogger("ebft").warning("the study that started this run is gone")
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(work(RunFolder(Path(sys.argv[1]))))
