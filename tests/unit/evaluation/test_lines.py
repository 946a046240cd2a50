"""`evaluations.jsonl`: what is written can be read, and files of before still are."""

import json

import pytest
import torch

from ebft.errors import UserError
from ebft.evaluation.harness import HarnessFigure, append_figures
from ebft.evaluation.lines import DocumentsLine, Line, read_evaluations
from ebft.evaluation.tables import read_tables
from ebft.parts.measurements import Measurement
from tests.docs.pages import ROOT

RECORDS = sorted(file.parent for file in ROOT.glob("docs/results/**/study.json"))
WRITTEN = {
    "step": 0, "name": "x", "unit": "nats", "mean": 2.0, "half_width_95": None, "documents": 1,
    "set": "held-out", "at": None, "documents_digest": "2 documents, abc", "values": [2.0, 0.5],
    "weights": [3.0, 0.0], "clusters": [0, 1],
}  # fmt: skip


def write(file, *lines, end="\n"):
    file.write_text("\n".join(map(json.dumps, lines)) + end)
    return file


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_recorded_lines_are_written_as_they_were(record, tmp_path):
    for run, recorded in read_tables(record).items():
        text = "".join(line.to_json() + "\n" for line in recorded)
        (tmp_path / run).write_text(text)
        assert "".join(line.to_json() + "\n" for line in read_evaluations(tmp_path / run)) == text


def test_a_measurement_becomes_a_line():
    measured = Measurement(
        "held-out x", "nats", torch.tensor([1.0, 3.0, 9.0]), torch.tensor([1.0, 1.0, 0.0]),
        at=8, of="held-out", clusters=torch.tensor([0, 1, 1]),
    )  # fmt: skip
    line = json.loads(DocumentsLine.of(5, measured, "abc").to_json())
    assert line.pop("half_width_95") == pytest.approx(12.7062, rel=1e-5)  # t of one degree, times 1
    assert line == {
        "step": 5, "name": "held-out x", "unit": "nats", "mean": 2.0, "documents": 2,
        "set": "held-out", "at": 8, "documents_digest": "abc", "values": [1.0, 3.0, 9.0],
        "weights": [1.0, 1.0, 0.0], "clusters": [0, 1, 1],
    }  # fmt: skip


def test_the_harness_s_figures_have_no_documents(tmp_path):
    figures = [HarnessFigure("arc", "acc,none", 0.5, 0.1), HarnessFigure("arc", "f1", 0.25, None)]
    append_figures(tmp_path / "e", figures)
    assert (tmp_path / "e").read_text().splitlines()[1] == (
        '{"step": 0, "name": "arc f1", "unit": "lm-evaluation-harness", "mean": 0.25, '
        '"half_width_95": null, "set": "arc"}'
    )
    one, other = read_evaluations(tmp_path / "e")
    assert one == Line(0, "arc acc,none", "lm-evaluation-harness", 0.5, 1.96 * 0.1, "arc")
    assert other.half_width_95 is None


def test_before_there_were_clusters_each_document_was_one(tmp_path):
    old = {key: value for key, value in WRITTEN.items() if key != "clusters"}
    (line,) = read_evaluations(write(tmp_path / "e", old))
    assert line.clusters.tolist() == [0, 1]


def test_a_last_line_that_was_cut_off_does_not_count(tmp_path):
    file = write(tmp_path / "e", WRITTEN, WRITTEN, end="")
    assert len(read_evaluations(file)) == 1


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "Expecting property name"),
        ("3", "it must be an object"),
        ("[" * 2000 + "]" * 2000, "nested more than 100 levels deep"),
        ('{"step": 1, "ce": 2.5}', "name is missing"),
        (json.dumps({**WRITTEN, "step": True}), "step = True: it must be a valid integer"),
        (
            json.dumps({**WRITTEN, "step": 2**63}),
            "step = 9223372036854775808: it must be less than",
        ),
        (json.dumps({**WRITTEN, "clusters": [0]}), "values, weights and clusters differ in number"),
        (
            json.dumps({**WRITTEN, "clusters": [0, 10**12]}),
            "clusters.1 = 1000000000000: it must be",
        ),
        (json.dumps({**WRITTEN, "clusters": [0, -5]}), "clusters.1 = -5: it must be"),
        (json.dumps({**WRITTEN, "values": [float("nan"), 0]}), "values.0 = nan: it must be finite"),
        (json.dumps({**WRITTEN, "weights": [3.0, -1.0]}), "weights.1 = -1.0: it must not be below"),
        (json.dumps({**WRITTEN, "weights": [0.0, 0.0]}), "weights: the sum over all documents"),
    ],
)
def test_a_line_that_is_no_figure_is_named(tmp_path, line, says):
    file = tmp_path / "e"
    file.write_text(json.dumps(WRITTEN) + "\n" + line + "\n")
    with pytest.raises(UserError, match=says) as error:
        read_evaluations(file)
    assert str(error.value).startswith(f"{file}, line 2: not a figure of an evaluation")
