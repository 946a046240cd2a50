"""Where documents are of too few clusters for an interval, everything that shows one says so."""

import io
import json

import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from rich.console import Console

from ebft.evaluation.history import History
from ebft.evaluation.lines import DocumentsLine, read_evaluations
from ebft.evaluation.measure import EvaluationSet
from ebft.parts.measurements import Measurement
from ebft.report import curves
from ebft.report.compare import RunFigures
from ebft.report.comparison_table import comparison_table
from ebft.report.tables import figures_table, summary_table
from ebft.rollout.records import Document
from ebft.scoring.interval import TOO_FEW_NOTE
from ebft.study.folder import StudyFolder
from ebft.study.report.groups import crossings
from ebft.study.report.make import write_report
from ebft.study.report.plots import plot_heat_map
from ebft.study.report.read import read_study
from tests.unit.report.studies import grid_study

FILES = {"one": ["a"] * 4, "one file and another's piece": ["a"] * 9 + ["b"], "three": [*"abc"]}


def measured(files, add=0.0, at=None):
    value = torch.arange(len(files)).double() + add
    clusters = torch.tensor([sorted(set(files)).index(name) for name in files])
    return Measurement(
        "held-out x", "nats", value, torch.ones(len(files)), at=at, of="held-out", clusters=clusters
    )


def history(files, folder, at=None):
    documents = [Document(f"{i}", torch.arange(3), cluster=name) for i, name in enumerate(files)]
    made = History([EvaluationSet("held-out", documents, [])], folder / "evaluations.jsonl")
    for step in (0, 4):
        made.add(step, {"held-out x": measured(files, step * (1 + 0.1 * step), at)})
    return made


def shown(table):
    console = Console(file=io.StringIO(), width=100)
    console.print(table)
    return console.file.getvalue()


@pytest.mark.parametrize("files", FILES.values(), ids=list(FILES))
def test_tables_say_it(files, tmp_path):
    few, run = len(set(files)) < 3, history(files, tmp_path)
    one = " ".join(shown(summary_table(run)).split())
    assert one.count("(too few)") == 3 * few
    assert one.count("±") == 1 + 3 * (not few), "and one in the title"
    for table in (summary_table(run), figures_table(run, title="x")):
        text = " ".join(shown(table).split())
        assert (TOO_FEW_NOTE in text) == few
        assert "inf" not in text
    lines = read_evaluations(tmp_path / "evaluations.jsonl")
    runs = [
        RunFigures(label, {"held-out x": line}) for label, line in zip("AB", lines, strict=True)
    ]
    text = " ".join(shown(comparison_table(runs)).split())
    assert text.count("(too few)") == 3 * few
    assert (TOO_FEW_NOTE in text) == few


def test_files_have_null_and_no_infinity():
    line = DocumentsLine.of(0, measured(FILES["one"]), "abc").to_json()
    assert json.loads(line, parse_constant=pytest.fail)["half_width_95"] is None


@pytest.mark.parametrize("files", FILES.values(), ids=list(FILES))
def test_pictures_of_a_run_have_no_bars(files, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(curves, "png", lambda figure: drawn.append(figure) or b"")
    drawn.append(curves.plot_curves(history(files, tmp_path), []))
    assert curves.plot_lengths(history(files, tmp_path, at=8), tmp_path / "lengths.png")
    for figure in drawn:
        assert isinstance(figure, Figure)
        legend = " ".join(text.get_text() for text in figure.axes[0].get_legend().get_texts())
        assert ("(too few)" in legend) == (len(set(files)) < 3)
        assert ("95 %" in legend) == (len(set(files)) == 3)


def test_a_study_s_report(tmp_path):
    folder = StudyFolder(grid_study(tmp_path))
    for name in folder.plan().runs:
        file = folder.run(name).evaluations
        lines = [json.loads(line) | {"clusters": [0] * 8} for line in file.open()]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = write_report(tmp_path).read_text()
    assert "<td>too few</td>" in page.replace(' class="number"', "")
    assert "inf" not in (tmp_path / "report" / "tables.md").read_text().split()
    table = pd.read_csv(tmp_path / "report" / "effects.csv")
    assert (table.change_documents == float("inf")).all()
    assert not any("**" in line for line in (tmp_path / "report" / "tables.md").open())
    study = read_study(tmp_path)
    (crossing,) = crossings(study)
    texts = [text.get_text() for text in plot_heat_map(study, crossing).axes[0].texts]
    assert any(text.endswith("\n(too few)") for text in texts)
