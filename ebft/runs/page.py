"""`report.html`: a run's page, made from the files in its folder, while it runs and afterwards."""

from __future__ import annotations

import logging
from pathlib import Path
from time import perf_counter

from ebft.config.read import read_yaml
from ebft.errors import UserError
from ebft.evaluation.lines import read_evaluations
from ebft.files import read_text, write_whole
from ebft.report.rollouts_log import read_rollouts
from ebft.report.run_page import RunFiles, run_page
from ebft.report.surroundings import read_starts
from ebft.runs.folder import RECIPE, OutputFolder
from ebft.runs.metrics_log import read_metrics

SHARE = 0.05
"""The largest share of a run's time that its page may take."""

log = logging.getLogger("ebft")


def write_run_page(folder: Path) -> Path:
    """Writes the page of the run in `folder`, and returns its path.

    Raises `UserError` if there is no run in it, or if one of its files is damaged.
    """
    files = OutputFolder(folder)
    if not (folder / RECIPE).is_file():
        raise UserError(f"{folder}: there is no run in it, because it has no {RECIPE}")
    recipe = read_yaml(folder / RECIPE)
    training = recipe.get("training")
    steps: dict[int, dict[str, float]] = {}
    for line in read_metrics(files.metrics):
        steps.setdefault(line.step, {}).update(line.figures)
    page = run_page(
        RunFiles(
            name=folder.resolve().name,
            recipe=read_text(folder / RECIPE),
            steps_wanted=training["steps"] if isinstance(training, dict) else None,
            seed=recipe.get("seed", 0),
            starts=read_starts(files.environment),
            evaluations=read_evaluations(files.evaluations) if files.evaluations.exists() else [],
            steps=steps,
            rollouts=read_rollouts(files.rollouts),
        )
    )
    write_whole(files.page, page)
    return files.page


class PageWriter:
    """Writes a run's page again during the run, without taking more than `SHARE` of its time.

    A page that cannot be written is no reason to end a run, so it is only logged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._took, self._written = 0.0, perf_counter()

    def update(self) -> None:
        """Writes the page, unless the last time was too short a while ago."""
        if perf_counter() - self._written >= self._took / SHARE:
            self.write()

    def write(self) -> Path | None:
        """Writes the page; returns None if that failed."""
        began, page = perf_counter(), None
        try:
            page = write_run_page(self._folder)
        except (OSError, UserError) as error:
            log.warning("%s: not written: %s", self._folder / OutputFolder.PAGE, error)
        self._written = perf_counter()
        self._took = self._written - began
        return page
