"""A study's record: the report that it makes, and what is in it."""

import json
import shutil

import pandas as pd
import pytest
import yaml

from ebft.study.folder import StudyFolder
from ebft.study.report.make import write_report
from ebft.study.report.read import read_study
from tests.unit.report.studies import arm, grid_study, variants_study, write_study

FILES = {
    "documents.csv", "evaluations.csv", "recipes.yaml", "runs.jsonl", "steps.csv", "study.json",
}  # fmt: skip


def unfinished(path):
    """One run that is done, one that failed, one that has not ended; and one that was resumed."""
    runs = {
        "good": ([arm("reference")], 0, {"effect": 0.1}),
        "bad": ([arm("n=2", sampler__n="2")], 0, {"effect": 0.2, "status": "failed"}),
        "late": ([arm("n=8", sampler__n="8")], 0, {"effect": 0.3, "status": "pending"}),
        "again": ([arm("n=4", sampler__n="4")], 0, {"effect": 0.4}),
    }
    folder = StudyFolder(write_study(path, runs))
    again = folder.run("again")
    with again.metrics.open("a") as file:  # with what other runs lack, before what they have
        file.write('{"step": 3, "held-out CE": 1.0, "more": 2.5, "ce": NaN}\n')
    with again.evaluations.open("a") as file:
        file.write(
            json.dumps(
                {
                    "step": 4,
                    "name": "arc",
                    "unit": "",
                    "mean": 0.5,
                    "half_width_95": None,
                    "set": "arc",
                }
            )
            + "\n"
        )
    return path


@pytest.mark.parametrize("write", [grid_study, variants_study, unfinished])
def test_a_record_makes_the_same_report(write, ebft, tmp_path):
    study, record = write(tmp_path / "study"), tmp_path / "handed on"
    index = write_report(study)
    shutil.move(study / "record", record)
    assert {file.name for file in record.iterdir()} == FILES
    status, _, err = ebft("report", str(record))
    assert status == 0, err
    assert {file.name for file in record.iterdir()} == {*FILES, "report"}
    for file in index.parent.iterdir():
        assert (record / "report" / file.name).read_bytes() == file.read_bytes(), file.name


def test_nothing_is_lost(tmp_path):
    read = read_study(unfinished(tmp_path))
    write_report(tmp_path)
    again = read_study(tmp_path / "record")
    assert again.plan == read.plan
    assert [run.name for run in again.runs] == ["good", "bad", "late", "again"]
    for run, recorded in zip(read.runs, again.runs, strict=True):
        assert (recorded.description, recorded.result) == (run.description, run.result)
        assert [it.to_json() for it in recorded.lines] == [it.to_json() for it in run.lines]
        assert repr(recorded.steps.keys()) == repr(run.steps.keys())
        for step, figures in run.steps.items():
            assert repr(sorted(recorded.steps[step].items())) == repr(sorted(figures.items()))


def test_it_is_read_without_ebft(tmp_path):
    write_report(variants_study(tmp_path, seeds=(0, 1)))
    record = tmp_path / "record"
    texts = (record / "recipes.yaml").read_text()
    assert texts.startswith("--- # SFT-0\nrecipe: finetune\nseed: 0\n--- # RLVR-0\n")
    assert [it["seed"] for it in yaml.safe_load_all(texts)] == [0] * 3 + [1] * 3
    runs = pd.read_json(record / "runs.jsonl", lines=True)
    assert runs.result[0]["surroundings"] == {"ebft": "0.1.0, commit abc"}
    steps = pd.read_csv(record / "steps.csv")
    assert list(steps.columns) == ["run", "step", "ce", "seconds"]
    assert len(steps) == 6 * 4
    documents = pd.read_csv(record / "documents.csv")
    mean = documents.groupby(["step", "name"])["EBFT-1"].mean()
    figures = pd.read_csv(record / "evaluations.csv").query("run == 'EBFT-1'")
    for figure in figures.itertuples():
        assert figure.mean == pytest.approx(mean[figure.step, figure.name])
