"""Reads the evaluations of runs, each given by its folder, its file, or its name in a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ebft.errors import UserError
from ebft.evaluation.lines import Line, read_evaluations
from ebft.evaluation.tables import FIGURES_FILE, read_tables
from ebft.printable import printable
from ebft.report.compare import RunFigures, last_figures, shared_names

FILE = "evaluations.jsonl"


@dataclass(frozen=True, slots=True)
class Source:
    """The location of a run's evaluations: a file of its own, or `run` in the file of a record."""

    file: Path
    run: str | None

    @property
    def path(self) -> Path:
        """A path that is different for each run."""
        return self.file if self.run is None else self.file.parent / self.run

    def is_of(self, other: Source) -> bool:
        return self.run == other.run and self.file.samefile(other.file)

    def read(self) -> list[Line]:
        """All figures of the run. Raises `UserError` for damaged files, and if a record has no such
        run."""
        if self.run is None:
            return read_evaluations(self.file)
        runs = read_tables(self.file.parent)
        if self.run not in runs:
            raise UserError(f"{self.path}: no such run in this record; it has {', '.join(runs)}")
        return runs[self.run]


def read_runs(paths: Sequence[Path]) -> list[RunFigures]:
    """Reads the last figures of two or more runs.

    Raises `UserError` for a single run, for a run that is given twice, has no evaluations or cannot
    be read, and if the runs share no figure.
    """
    if len(paths) < 2:
        only = " ".join(map(str, paths))
        raise UserError(f"{only}: nothing to compare with; give a second run")
    try:
        sources = [source(path) for path in paths]
        for number, (path, found) in enumerate(zip(paths, sources, strict=True)):
            if any(found.is_of(other) for other in sources[:number]):
                raise UserError(f"{path}: this run is given twice; leave it out once")
        figures = [last_figures(found.read()) for found in sources]
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from error
    runs = list(map(RunFigures, labels([found.path for found in sources]), figures))
    for run, path in zip(runs, paths, strict=True):
        if not run.figures:
            raise UserError(f"{path}: nothing has been measured yet; wait for its first evaluation")
    if not shared_names(runs):
        has = "; ".join(
            f"{path} has {', '.join(run.figures)}" for run, path in zip(runs, paths, strict=True)
        )
        raise UserError(
            f"no figure is in all of these runs: {has}; measure their checkpoints with one recipe "
            "(`ebft eval`)"
        )
    return runs


def source(path: Path) -> Source:
    """Finds a run's evaluations; `path` is the run's output_dir, its file, or RECORD/NAME."""
    if path.is_file():
        return Source(path, None)
    if not path.exists():
        if (path.parent / FIGURES_FILE).is_file():
            return Source(path.parent / FIGURES_FILE, path.name)
        raise UserError(f"{path}: no such file or folder; give a run's output_dir, or its {FILE}")
    if (path / FILE).is_file():
        return Source(path / FILE, None)
    hint = "give the output_dir of a run that has measured something"
    if (path / "output" / FILE).is_file():
        hint = f"did you mean {path / 'output'}?"
    elif (path / FIGURES_FILE).is_file():
        hint = f"it is a study's record; give one of its runs by name: {path / 'NAME'}"
    raise UserError(f"{path}: there is no {FILE} in this folder; {hint}")


def labels(files: Sequence[Path]) -> list[str]:
    """Shortens paths to labels: removes the folders that all of them begin and end with.

    >>> labels([Path("runs/sft/evaluations.jsonl"), Path("runs/ebft/n4/evaluations.jsonl")])
    ['sft', 'ebft/n4']
    """
    parts = [file.absolute().parts for file in files]
    while min(map(len, parts)) > 1 and len({part[-1] for part in parts}) == 1:
        parts = [part[:-1] for part in parts]
    while min(map(len, parts)) > 1 and len({part[0] for part in parts}) == 1:
        parts = [part[1:] for part in parts]
    return [printable("/".join(part)) for part in parts]
