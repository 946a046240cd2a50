"""Writes the report of a study from its folder or its record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ebft.files import write_whole
from ebft.report.style import png
from ebft.study.folder import StudyFolder, file_name
from ebft.study.report.effects import effects
from ebft.study.report.groups import comparisons, crossings
from ebft.study.report.page import markdown, page
from ebft.study.report.plots import plot_curves, plot_effects, plot_families, plot_heat_map
from ebft.study.report.read import is_study, read_study
from ebft.study.report.record_files import write_record
from ebft.study.report.records import StudyRecord, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_report(path: Path) -> Path:
    """Writes `report/` into the folder of a study or of its record, and returns its index.html.

    The report has metrics.csv and .parquet (every figure of every run), effects.csv, tables.md,
    pictures, and index.html with the tables and pictures. In a study's own folder, the record is
    written too. Raises `UserError` if there is no study in the folder.
    """
    study, folder = read_study(path), StudyFolder(path).report
    if is_study(path):
        write_record(study, StudyFolder(path))
    folder.mkdir(exist_ok=True)
    every = tidy(study)
    write_whole(folder / "metrics.csv", every.to_csv(index=False))
    write_whole(folder / "metrics.parquet", every.to_parquet(index=False))
    table = effects(study)
    write_whole(folder / "effects.csv", table.to_csv(index=False))
    write_whole(folder / "tables.md", markdown(study, table))
    # Several processes may write the report at once, so old pictures are only removed at the end.
    pictures, written = [], set[str]()
    for name, caption, figure in _figures(study):
        file = f"{file_name(name)}.png"
        if file in written:  # two labels can become the same file name
            file = f"{file_name(name)}-{len(written)}.png"
        pictures.append((caption, png(figure)))
        write_whole(folder / file, pictures[-1][1])
        written.add(file)
    for old in folder.glob("*.png"):
        if old.name not in written:
            old.unlink(missing_ok=True)
    index = folder / "index.html"
    write_whole(index, page(study, table, pictures))
    return index


EFFECTS = (
    "Final held-out values. Bars: 95 % interval of the paired difference from the reference "
    "(black), over documents, for these trained policies. Small points: seeds. Dashed: the "
    "reference; dotted: before training. Without a bar: not paired, or too few clusters."
)
HEAT_MAP = "differences from the reference, with the 95 % half-width over documents."
FAMILIES = (
    "by length of the completion, after training. Bars: 95 % interval of the change during "
    "training, over documents."
)
CURVES = (
    "during training, at equal steps and at equal FLOPs. Lines are means over seeds. Bands reach "
    "from the lowest to the highest seed, in the change since the first evaluation."
)


def _figures(study: StudyRecord) -> Iterator[tuple[str, str, Figure]]:
    """Name, caption and figure of each picture that is not empty."""
    if not study.done:
        return
    compared = comparisons(study)
    if (figure := plot_effects(study, compared)) is not None:
        yield "effects", EFFECTS, figure
    for it in crossings(study):
        if (figure := plot_heat_map(study, it)) is not None:
            name = f"heat_map-{it.rows}-{it.columns}"
            yield name, f"{it.rows} against {it.columns}: {HEAT_MAP}", figure
    for comparison in compared:
        title = comparison.title
        if (figure := plot_families(study, comparison)) is not None:
            yield f"by_length-{title}", f"{title}: {FAMILIES}", figure
        if (figure := plot_curves(study, comparison)) is not None:
            yield f"curves-{title}", f"{title}: {CURVES}", figure
