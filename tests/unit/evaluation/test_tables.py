"""The figures of several runs as two tables: nothing is lost, and what is damaged is named."""

import csv

import pytest
import torch

from ebft.errors import UserError
from ebft.evaluation.lines import DocumentsLine, Line
from ebft.evaluation.tables import (
    DOCUMENTS_FILE,
    FIGURES_FILE,
    read_tables,
    write_evaluations,
)
from tests.docs.pages import ROOT

RECORDS = sorted(file.parent for file in ROOT.glob("docs/results/**/study.json"))


def line(name="held-out x", step=0, values=(0.1, 1 / 3, 2e-17), weights=(1.0, 5.0, 2.5), **more):
    values, weights = (torch.tensor(it, dtype=torch.float64) for it in (values, weights))
    return DocumentsLine(
        step, name, "nats", 0.1 + 0.2, None, "held-out",
        **{
            "at": None, "documents_digest": "3 documents, abc", "values": values,
            "weights": weights, "clusters": torch.tensor([0, 1, 0]), "share": False, **more,
        },
    )  # fmt: skip


def text(runs):
    return {run: [line.to_json() for line in lines] for run, lines in runs.items()}


RUNS = {
    "one": [line(), line(step=4, share=True), Line(4, "arc, acc", "", 0.5, 0.1, "arc")],
    "two, with other rollouts": [
        line(weights=(1.0, 0.0, 2.5), values=(0.1, float("nan"), 2.0)),
        line("x of 8 tokens", at=8, documents_digest="other"),
    ],
    "three": [Line(0, 'f1 "macro"', "lm", 0.25, None, "")],
}


def test_what_is_written_is_read(tmp_path):
    write_evaluations(tmp_path, RUNS)
    assert text(read_tables(tmp_path)) == text(RUNS)


def test_a_document_is_a_row_with_a_column_for_each_run(tmp_path):
    write_evaluations(tmp_path, RUNS)
    first, *rows = csv.reader((tmp_path / DOCUMENTS_FILE).open(newline=""))
    assert first == ["step", "name", "document", "weight", "cluster", *RUNS]
    assert rows[:4] == [
        ["0", "held-out x", "0", "1.0", "0", "0.1", "0.1", ""],
        ["0", "held-out x", "1", "5.0", "1", repr(1 / 3), "", ""],
        ["0", "held-out x", "1", "0.0", "1", "", "nan", ""],
        ["0", "held-out x", "2", "2.5", "0", "2e-17", "2.0", ""],
    ]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_recorded_tables_are_written_as_they_were(record, tmp_path):
    write_evaluations(tmp_path, read_tables(record))
    for name in (FIGURES_FILE, DOCUMENTS_FILE):
        assert (tmp_path / name).read_bytes() == (record / name).read_bytes()


def test_a_run_that_is_called_as_a_column_is_refused(tmp_path):
    with pytest.raises(ValueError, match="two columns are called weight"):
        write_evaluations(tmp_path, {"weight": [line()]})


DAMAGED = {
    "a value": (DOCUMENTS_FILE, "0.1,0.1", "low,0.1", "row 2: one = 'low': it must be a valid num"),
    "a weight": (DOCUMENTS_FILE, "0,1.0,0", "0,-1.0,0", "row 2: weight = '-1.0': it must be"),
    "a value that is none": (DOCUMENTS_FILE, "0.1,0.1", "nan,0.1",
                             "row 2: in documents.csv, values.0 = nan: it must be finite"),
    "a cluster": (DOCUMENTS_FILE, "0,1.0,0", "0,1.0,3", "clusters.0 = 3: it must be below 3"),
    "a row that is gone": (DOCUMENTS_FILE, "0,held-out x,0,1.0,0,0.1,0.1,\n", "",
                           "row 2: document = 1: the next one of one is 0"),
    "the last row": (DOCUMENTS_FILE, "4,held-out x,2,2.5,0,2e-17,,\n", "4,held-out x,2,2.5,0,2e",
                     "its last row was cut off"),
    "half a row": (DOCUMENTS_FILE, "1.0,0,0.1,0.1,", "1.0,0,0.1", "row 2: it has 6 cells, and"),
    "a quote": (DOCUMENTS_FILE, "held-out x,0,1.0", '"held-out"x,0,1.0', "row 2: "),
    "a header": (DOCUMENTS_FILE, "three", "one", "row 1: two columns are called one"),
    "a column": (DOCUMENTS_FILE, "cluster,", "clutter,", "row 2: cluster is missing"),
    "the end": (DOCUMENTS_FILE, "4,held-out x,2,2.5,0,2e-17,,\n", "",
                "row 3: documents = 3: documents.csv has 2"),
    "all of a figure": (FIGURES_FILE, "0,held-out x", "1,held-out x",
                        "row 2: name = held-out x: documents.csv has no documents of it"),
    "a figure twice": (FIGURES_FILE, "4,held-out x", "0,held-out x",
                       "row 3: name = held-out x: the run has this row twice"),
    "a digest": (FIGURES_FILE, "3,other", "3,", "row 6: documents_digest is missing"),
    "a step": (FIGURES_FILE, "one,0,", "one,-1,", "row 2: step = '-1': it must be greater than"),
    "no figure": (FIGURES_FILE, "one,0,held-out x", "two,7,held-out x", "row 2: name = held-out x"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new", "says"), DAMAGED.values(), ids=DAMAGED)
def test_what_is_damaged_is_named(name, old, new, says, tmp_path):
    write_evaluations(tmp_path, RUNS)
    content = (tmp_path / name).read_text()
    assert old in content
    (tmp_path / name).write_text(content.replace(old, new, 1))
    with pytest.raises(UserError) as raised:
        read_tables(tmp_path)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_figure_that_is_gone_is_missed(tmp_path):
    write_evaluations(tmp_path, RUNS)
    rows = (tmp_path / FIGURES_FILE).read_text().splitlines(keepends=True)
    (tmp_path / FIGURES_FILE).write_text("".join(rows[:1] + rows[2:]))
    with pytest.raises(UserError, match="held-out x of the run one after step 0 is missing"):
        read_tables(tmp_path)
