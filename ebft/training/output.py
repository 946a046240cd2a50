"""The output folder of a run: one run each, and nothing of another run is left in it."""

from __future__ import annotations

import shutil
from pathlib import Path

from ebft.errors import UserError
from ebft.files import write_whole

RECIPE = "recipe.yaml"


class OutputFolder:
    """`output_dir`: what a run writes, and where.

    `check` refuses a folder that holds a run, or one that cannot be written, before anything is
    loaded; `claim` makes it this run's when everything has been built.
    """

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        self._path, self._overwrite = path, overwrite
        self.checkpoints = path / "checkpoints"
        self.logs = path / "logs"
        self.evaluations = path / "evaluations.jsonl"
        self.picture = path / "training.png"
        self.lengths = path / "by_length.png"
        self._recipe = path / RECIPE

    def check(self, *, resume: bool = False) -> None:
        """Raises `UserError` if a run is there already or the folder cannot be written.

        `resume`: the run that is there is the one that goes on.
        """
        if self._recipe.exists() and not (self._overwrite or resume):
            raise UserError(
                f"output_dir = {self._path}: there is a run in that folder already; "
                "choose another, say checkpoint.resume=auto to go on with that run, or "
                "overwrite=true"
            )
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            (self._path / ".writable").touch()
            (self._path / ".writable").unlink()
        except OSError as error:
            raise UserError(
                f"output_dir = {self._path}: cannot be written: {error.strerror}"
            ) from error

    def claim(self, recipe: str, *, resume: bool = False) -> None:
        """Removes what an overwritten run left behind, and saves the recipe as it was resolved."""
        if self._recipe.exists() and not resume:
            shutil.rmtree(self.checkpoints, ignore_errors=True)
            shutil.rmtree(self.logs, ignore_errors=True)
            for file in (self.evaluations, self.picture, self.lengths):
                file.unlink(missing_ok=True)
        write_whole(self._recipe, recipe)
