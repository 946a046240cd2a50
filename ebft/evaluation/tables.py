"""What several runs have measured, as two tables: every figure, and their values by document.

A study's record holds them, in place of an `evaluations.jsonl` for each run. The values of one
document stand side by side, a column a run: differences between runs are paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
from pydantic import BaseModel, Field, TypeAdapter

from ebft.errors import UserError
from ebft.evaluation.lines import DocumentsLine, Line, check_values
from ebft.files import Count, Flag, Number, Text, read_table, table, write_whole

FIGURES_FILE = "evaluations.csv"
DOCUMENTS_FILE = "documents.csv"
FIGURE_COLUMNS = [
    "run", "step", "name", "unit", "mean", "half_width_95", "set", "at", "share", "documents",
    "documents_digest",
]  # fmt: skip
DOCUMENT_COLUMNS = ["step", "name", "document", "weight", "cluster"]
"""Those beside the runs: a column for each run has its values."""


@dataclass(frozen=True)
class FigureRow:
    """A figure of a run. The fields from `at` on are only of figures by document."""

    run: Text
    step: Count
    name: Text
    mean: Number
    unit: Text = ""
    half_width_95: Number | None = None
    set: Text = ""
    at: Count | None = None
    share: Flag = False
    documents: Count | None = None
    documents_digest: Text | None = None


class DocumentRow(BaseModel, extra="allow"):
    """A document in a figure: its values by the names of the runs.

    Runs in which it has another weight or cluster have another row.
    """

    __pydantic_extra__: dict[str, Number]
    step: Count
    name: Text
    document: Count
    weight: Annotated[Number, Field(ge=0)]
    cluster: Count

    @property
    def values(self) -> dict[str, float]:
        return self.__pydantic_extra__


class Value(NamedTuple):
    """A document's part in a figure of a run."""

    value: float
    weight: float
    cluster: int


FIGURE, DOCUMENT = TypeAdapter(FigureRow), TypeAdapter(DocumentRow)


def write_evaluations(folder: Path, runs: Mapping[str, Sequence[Line]]) -> None:
    """Writes both tables of runs, given by their names. Raises `ValueError` if a run is called as
    one of the columns."""
    figures: list[Sequence[object]] = []
    documents: dict[tuple[int, str, int, float, int], dict[str, float]] = {}
    for run, lines in runs.items():
        for line in lines:
            figure: list[object] = [
                run, line.step, line.name, line.unit, line.mean, line.half_width_95, line.set
            ]  # fmt: skip
            if isinstance(line, DocumentsLine):
                share = "true" if line.share else None
                figure += [line.at, share, line.documents, line.documents_digest]
                columns = (line.values.tolist(), line.weights.tolist(), line.clusters.tolist())
                for number, (value, *rest) in enumerate(zip(*columns, strict=True)):
                    row = documents.setdefault((line.step, line.name, number, *rest), {})
                    row[run] = value
            figures.append(figure + [None] * (len(FIGURE_COLUMNS) - len(figure)))
    place = {name: at for at, name in enumerate(dict.fromkeys(name for _, name, *_ in documents))}
    ordered = sorted(documents.items(), key=lambda row: (row[0][0], place[row[0][1]], row[0][2]))
    rows = ([*key, *map(values.get, runs)] for key, values in ordered)
    write_whole(folder / DOCUMENTS_FILE, table([*DOCUMENT_COLUMNS, *runs], rows))
    write_whole(folder / FIGURES_FILE, table(FIGURE_COLUMNS, figures))


def read_tables(folder: Path) -> dict[str, list[Line]]:
    """The figures of each run, in order.

    Raises `UserError` naming the file, the row and the field that is no such figure's.
    """
    documents: dict[tuple[str, int, str], list[Value]] = {}
    with reading(folder / DOCUMENTS_FILE) as file:
        for number, row in read_table(file, DOCUMENT):
            for run, value in row.values.items():
                others = documents.setdefault((run, row.step, row.name), [])
                if row.document != len(others):
                    why = f"document = {row.document}: the next one of {run} is {len(others)}"
                    raise ValueError(f"row {number}: {why}")
                others.append(Value(value, row.weight, row.cluster))
    found: dict[str, list[Line]] = {}
    seen = set()
    with reading(folder / FIGURES_FILE) as file:
        for number, figure in read_table(file, FIGURE):
            key = (figure.run, figure.step, figure.name)
            if key in seen:
                raise ValueError(f"row {number}: name = {figure.name}: the run has this row twice")
            seen.add(key)
            try:
                line = _line(figure, documents.pop(key, []))
            except ValueError as error:
                raise ValueError(f"row {number}: {error}") from error
            found.setdefault(figure.run, []).append(line)
        for run, step, name in documents:
            raise ValueError(
                f"{name} of the run {run} after step {step} is missing; {DOCUMENTS_FILE} has it"
            )
    return found


@contextmanager
def reading(file: Path) -> Iterator[Path]:
    """Turns what is wrong with a file of a record into a `UserError` that names the file."""
    try:
        yield file
    except ValueError as error:
        raise UserError(
            f"{file} is damaged: {error}; copy the record again, or write it again from the "
            "study's folder (`ebft report`)"
        ) from error
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error


def _line(row: FigureRow, documents: Sequence[Value]) -> Line:
    figure = (row.step, row.name, row.unit, row.mean, row.half_width_95, row.set)
    if row.documents_digest is None:
        if documents:
            raise ValueError(f"documents_digest is missing, and {DOCUMENTS_FILE} has documents")
        return Line(*figure)
    if not documents:
        raise ValueError(f"name = {row.name}: {DOCUMENTS_FILE} has no documents of it")
    values, weights, clusters = map(list, zip(*documents, strict=True))
    try:
        check_values(values, weights, clusters)
    except ValueError as error:
        raise ValueError(f"in {DOCUMENTS_FILE}, {error}") from error
    line = DocumentsLine(
        *figure,
        at=row.at,
        documents_digest=row.documents_digest,
        values=torch.tensor(values, dtype=torch.float64),
        weights=torch.tensor(weights, dtype=torch.float64),
        clusters=torch.tensor(clusters),
        share=row.share,
    )
    if line.documents != row.documents:
        raise ValueError(f"documents = {row.documents}: {DOCUMENTS_FILE} has {line.documents}")
    return line
