"""Reading the evaluations of several runs, each named by its folder or by the file itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ebft.errors import UserError
from ebft.evaluation.lines import read_evaluations
from ebft.printable import printable
from ebft.report.compare import RunFigures, last_figures, shared_names

FILE = "evaluations.jsonl"


def read_runs(paths: Sequence[Path]) -> list[RunFigures]:
    """The last figures of two runs or more.

    Raises `UserError` for a single run, for one that is given twice, has no evaluations or cannot
    be read, and if there is no figure that all of them have.
    """
    if len(paths) < 2:
        only = " ".join(map(str, paths))
        raise UserError(f"{only}: nothing to compare with; name a second run behind it")
    try:
        files = [evaluations_file(path) for path in paths]
        for number, (path, file) in enumerate(zip(paths, files, strict=True)):
            if any(file.samefile(other) for other in files[:number]):
                raise UserError(f"{path}: this run is given twice; leave it out once")
        figures = [last_figures(read_evaluations(file)) for file in files]
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from error
    runs = list(map(RunFigures, labels(files), figures))
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


def evaluations_file(path: Path) -> Path:
    """The file that holds a run's evaluations; `path` is the run's output_dir, or the file."""
    if path.is_file():
        return path
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; give a run's output_dir, or its {FILE}")
    if (path / FILE).is_file():
        return path / FILE
    hint = "give the output_dir of a run that has measured something"
    if (path / "output" / FILE).is_file():
        hint = f"did you mean {path / 'output'}?"
    raise UserError(f"{path}: there is no {FILE} in this folder; {hint}")


def labels(files: Sequence[Path]) -> list[str]:
    """As much of each path as tells it from the others: what they begin and end with is left out.

    >>> labels([Path("runs/sft/evaluations.jsonl"), Path("runs/ebft/n4/evaluations.jsonl")])
    ['sft', 'ebft/n4']
    """
    parts = [file.absolute().parts for file in files]
    while min(map(len, parts)) > 1 and len({part[-1] for part in parts}) == 1:
        parts = [part[:-1] for part in parts]
    while min(map(len, parts)) > 1 and len({part[0] for part in parts}) == 1:
        parts = [part[1:] for part in parts]
    return [printable("/".join(part)) for part in parts]
