"""One run of a study, in a process of its own: `python -m ebft.study.worker FOLDER`.

It holds the run's lock while it runs, writes the result, and ends when the process that started it
ends, which closes its standard input.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import Timeout

from ebft.study.contents import Result
from ebft.study.folder import RunFolder

HELD_ELSEWHERE = 75
"""Exit status when another process has locked the run. (EX_TEMPFAIL of sysexits.h)"""
STOPPED = 130


def work(run: RunFolder) -> int:
    """Runs the recipe of a run's folder, and returns the exit status.

    0: done, 1: failed, 75: locked by another process, 130: stopped.
    """
    try:
        with run.lock():
            if run.result() is None:
                return _run(run)
            _drop_checkpoints(run)  # the process may have been killed before it did
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
    except Exception as error:  # a bug in a plug-in or in ebft ends this run, but not the study
        logging.getLogger("ebft").error("%s", error, exc_info=True)
        reason = f"{type(error).__name__}: {error}"
    else:
        # The result is written first: without it and without checkpoints the run would be repeated.
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

    here: dict[str, Any] = {
        "checkpoint.resume": "auto",
        # The folder may have been moved since the recipe was written.
        "output_dir": str(run.output),
        "evaluation.remember": str(run.study.remembered),
        # Recipes of older versions name a metric logger that no longer exists.
        "metric_loggers": [],
        # All runs of a study would be uploaded to the same repository.
        "checkpoint.hub": None,
    }
    origin = "the study's worker"
    description = run.description()
    assert description is not None, "it is written before the run begins"
    if description.starts_from is not None:
        start = run.study.run(description.starts_from)
        started = start.description()
        assert started is not None, "it is written before the run begins"
        here["model.path"] = str(start.trained(started.steps))
    if description.processes > 1:
        return _finish_in(description.processes, run, here)
    overrides = [override(key, value, origin=origin) for key, value in here.items()]
    return run_job(load_recipe(run.recipe, overrides).job)


def _finish_in(processes: int, run: RunFolder, here: Mapping[str, Any]) -> bool:
    """Runs the recipe in processes that torchrun starts. They write into the run's log, as this
    one does. Raises `RunsFailedError` with the error there."""
    from ebft.distributed.torchrun import torchrun
    from ebft.errors import RunsFailedError

    before = run.log.stat().st_size if run.log.exists() else 0
    overrides = [f"{key}={json.dumps(value)}" for key, value in here.items()]
    status = torchrun(
        ["--standalone", "--nproc_per_node", str(processes)],
        ["run", str(run.recipe), *overrides],
    )
    if status == 0:
        return True
    if status == STOPPED:
        return False
    if status == 128 + signal.SIGTERM:
        raise SystemExit(status)
    with run.log.open("rb") as log:
        log.seek(before)
        lines = log.read().decode(errors="replace").splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    said = errors or [line for line in lines if line.startswith("process ")]
    raise RunsFailedError(said[-1] if said else f"its processes ended with status {status}")


def _result(began: float, *, error: str | None) -> Result:
    from ebft.report.surroundings import surroundings

    return Result(
        status="done" if error is None else "failed",
        error=error,
        seconds=time.time() - began,
        surroundings=surroundings(),
    )


def _end_with_parent() -> None:
    # Not sys.stdin, because a thread that reads from it would crash the interpreter at exit.
    while os.read(0, 1):
        pass
    logging.getLogger("ebft").warning("the process of the study has ended, so this run stops")
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(work(RunFolder(Path(sys.argv[1]))))
