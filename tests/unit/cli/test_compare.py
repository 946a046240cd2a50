"""`ebft compare`, on two runs as they were recorded, and on what cannot be compared."""

import json
from functools import cache

import numpy as np
import pytest
from scipy import stats

from ebft.evaluation.tables import read_tables
from tests.docs.pages import ROOT

RECORD = ROOT / "docs" / "results" / "methods"
SFT, EBFT, SEED1 = (
    RECORD / name for name in ("SFT-seed0-93b29236", "EBFT-seed0-01429834", "EBFT-seed1-01429834")
)


@cache
def lines(run):
    return [json.loads(line.to_json()) for line in read_tables(run.parent)[run.name]]


def last(run):
    return {line["name"]: line for line in lines(run) if line["step"] == 40}


@pytest.fixture
def output(tmp_path):
    """Writes a run of the record as it is in a study's folder; returns its output_dir."""

    def write(run):
        folder = tmp_path / run.name / "output"
        folder.mkdir(parents=True)
        content = "".join(json.dumps(line) + "\n" for line in lines(run))
        (folder / "evaluations.jsonl").write_text(content)
        return folder

    return write


def paired(first, other):
    """The mean difference and its 95 % interval, clustered: written out for equal weights, with the
    matrices of the definition."""
    weights, clusters = np.array(first["weights"]), np.array(first["clusters"])
    differences = np.array(other["values"]) - np.array(first["values"])
    mean = np.average(differences, weights=weights)
    parts = weights / weights.sum() * (differences - mean)
    each = [clusters == cluster for cluster in np.unique(clusters)]
    sums = np.array([parts[one].sum() for one in each])
    h = np.array([weights[one].sum() for one in each]) / weights.sum()
    A, away = np.diag(h / (1 - h) ** 0.5), np.eye(len(h)) - h
    K = A @ away @ np.diag(1 / h) @ away.T @ A
    freedom = np.trace(K) ** 2 / np.trace(K @ K)
    half_width = stats.t.ppf(0.975, freedom) * (np.square(sums) / (1 - h)).sum() ** 0.5
    return f"{mean:+.4f} ± {half_width:.4f}"


def test_sft_against_ebft(ebft, output):
    runs = str(output(SFT)), str(output(EBFT) / "evaluations.jsonl")
    status, out, err = ebft("compare", *runs)
    assert (status, err) == (0, "")
    printed = [" ".join(line.split()) for line in out.splitlines()]
    first, other = last(SFT), last(EBFT)
    assert len(first) == 6
    for name, line in first.items():
        at = printed.index(f"{name} ({line['unit']}) │ │ │")
        assert printed[at + 1] == (
            f"SFT-seed0-93b29236 │ {line['mean']:.4f} ± {line['half_width_95']:.4f} │ │"
        )
        assert printed[at + 2].startswith(
            f"EBFT-seed0-01429834 │ {other[name]['mean']:.4f} ± {other[name]['half_width_95']:.4f} "
            f"│ {paired(line, other[name])} │"
        )
    assert "SFT-seed0-93b29236: after step 40" in printed
    assert ebft("compare", str(SFT), str(EBFT)) == (status, out, err), "the same from the record"


def test_each_of_several_runs_to_the_first(ebft):
    status, out, _ = ebft("compare", *map(str, (SFT, EBFT, SEED1)))
    assert status == 0
    for other in (EBFT, SEED1):
        assert paired(last(SFT)["held-out CE"], last(other)["held-out CE"]) in out


def test_the_documentation_shows_what_it_prints(ebft, monkeypatch):
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    _, _, section = page.partition("## Comparing two runs\n")
    command, _, rest = section.partition("\n    ebft ")[2].partition("\n\n")
    excerpt = rest.partition("```text\n")[2].partition("\n```")[0].splitlines()
    _, out, _ = ebft(*command.replace("\\\n", " ").split())
    printed = [line.rstrip() for line in out.splitlines()]
    assert len(excerpt) > 5
    for line in excerpt:
        assert line == "…" or line in printed, line


class TestMistakes:
    @pytest.fixture
    def refused(self, ebft, tmp_path):
        def run(*arguments):
            status, out, err = ebft("compare", *map(str, arguments))
            assert (status, out) == (2, "")
            assert "Traceback" not in err
            return err.strip()

        return run

    def test_one_run(self, refused):
        assert refused(SFT) == f"{SFT}: nothing to compare with; give a second run"

    def test_no_run(self, ebft):
        status, _, err = ebft("compare")
        assert status == 2
        assert err.startswith("usage: ebft compare [-h] RUN_A RUN_B [RUN_C ...]")

    def test_the_same_run_twice(self, refused, output):
        says, sft = "this run is given twice; leave it out once", output(SFT)
        assert refused(sft, EBFT, sft / "evaluations.jsonl").endswith(
            f"output/evaluations.jsonl: {says}"
        )
        assert refused(SFT, EBFT, SFT.parent / "." / SFT.name).endswith(f"{SFT.name}: {says}")

    def test_a_record_for_one_of_its_runs(self, refused):
        assert refused(SFT, RECORD).endswith(
            f"it is a study's record; give one of its runs by name: {RECORD / 'NAME'}"
        )

    def test_a_run_that_a_record_has_not(self, refused):
        says = "no such run in this record; it has SFT-seed0-93b29236, EBFT-seed0-01429834, "
        assert refused(SFT, RECORD / "SFT").startswith(f"{RECORD / 'SFT'}: {says}")

    def test_a_folder_that_is_not_there(self, refused, tmp_path):
        assert refused(SFT, tmp_path / "no") == (
            f"{tmp_path / 'no'}: no such file or folder; give a run's output_dir, or its "
            "evaluations.jsonl"
        )

    def test_a_folder_without_evaluations(self, refused, tmp_path):
        assert refused(tmp_path, EBFT) == (
            f"{tmp_path}: there is no evaluations.jsonl in this folder; give the output_dir of a "
            "run that has measured something"
        )

    def test_a_study_s_folder_of_a_run(self, refused, output):
        sft = output(SFT)
        assert refused(sft.parent, EBFT).endswith(f"in this folder; did you mean {sft}?")

    def test_a_run_that_has_measured_nothing_yet(self, refused, tmp_path):
        (tmp_path / "evaluations.jsonl").touch()
        assert refused(SFT, tmp_path) == (
            f"{tmp_path}: nothing has been measured yet; wait for its first evaluation"
        )

    def test_another_file(self, refused):
        runs = RECORD / "runs.jsonl"
        assert refused(SFT, runs).startswith(f"{runs}, line 1: not a figure of an evaluation")

    def test_nothing_in_common(self, refused, tmp_path):
        line = {**next(iter(last(SFT).values())), "name": "held-out BLEU"}
        (tmp_path / "evaluations.jsonl").write_text(json.dumps(line) + "\n")
        said = refused(SFT, tmp_path)
        assert said.startswith(f"no figure is in all of these runs: {SFT} has held-out CE, ")
        assert f"; {tmp_path} has held-out BLEU; measure their checkpoints with one" in said

    def test_a_file_that_may_not_be_read(self, refused, output, monkeypatch):
        sft = output(SFT)

        def read_text(path, **_):
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr("pathlib.Path.read_text", read_text)
        file = sft / "evaluations.jsonl"
        assert refused(sft, EBFT) == f"{file}: cannot be read: Permission denied"
