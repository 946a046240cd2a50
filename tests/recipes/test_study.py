"""Whole studies of a tiny model, each run in a process of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import yaml

from ebft.study.folder import StudyFolder
from ebft.study.job import Study
from ebft.study.worker import work
from tests.conftest import RECIPES


@pytest.fixture
def study(tiny_model, python_folder, tmp_path):
    """Writes a study of seconds-long runs in `tmp_path/out`; returns its file."""

    def write(steps=3, **content):
        plan = {"_component_": "strided", "start": 8, "stride": 8, "rollout_length": 4}
        whole = {
            "recipe": "study",
            "output_dir": str(tmp_path / "out"),
            "base_recipe": str(RECIPES / "ebft_full.yaml"),
            "overrides": {
                "model.path": str(tiny_model),
                "data.path": str(python_folder),
                "data.held_out": 0.25,
                "documents.length": 40,
                "plan": plan,
                "training.steps": steps,
                "training.micro_batch": 2,
                "checkpoint.every": 1,
            },
            "evaluation": {
                "documents": 3,
                "every": 2,
                "evaluators": [
                    {"_component_": "cross_entropy"},
                    {
                        "_component_": "feature_matching_loss",
                        "plan": plan,
                        "feature_map": {"_component_": "hidden_states", "depths": [0.5]},
                    },
                ],
            },
            **content,
        }
        file = tmp_path / "study.yaml"
        file.write_text(yaml.safe_dump(whole, sort_keys=False))
        return file

    return write


def results(folder):
    plan = json.loads((folder / "plan.json").read_text())
    found = {name: StudyFolder(folder).run(name).result() for name in plan["runs"]}
    return {name: result and result.status for name, result in found.items()}


def test_a_study_runs_records_failures_skips_and_grows(ebft, study, tmp_path, monkeypatch):
    # Importing torch takes a process seconds; the slow tests have real processes.
    monkeypatch.setattr("ebft.study.job.run_in_process", lambda run, **_: work(run))
    out = tmp_path / "out"
    factor = {"optimizer.lr": [1.0e-4, 1.0e30]}
    warm = {"lr_scheduler": None}
    status, _, err = ebft("ablate", str(study(grid=factor, variants={"v": {"overrides": warm}})))
    assert status == 1
    assert list(results(out).values()) == ["done", "failed"]
    first, second = results(out)
    assert f"1 of 2 runs failed:\n  {second}: step 2: " in err
    done = StudyFolder(out).run(first)
    assert not (done.output / "checkpoints").exists()
    assert done.result().surroundings["python"]
    assert (out / "report" / "index.html").is_file()
    assert f"--- # {second}\nrecipe: finetune\n" in (out / "record" / "recipes.yaml").read_text()

    # Again with a factor more: what is done is skipped, what failed is left as it is.
    files = [StudyFolder(out).run(name).evaluations for name in (first, second)]
    untouched = [file.stat().st_mtime_ns for file in files]
    grown = {"optimizer.lr": [1.0e-4, 1.0e30, 2.0e-4]}
    assert ebft("study", str(study(grid=grown, variants={"v": {"overrides": warm}})))[0] == 1
    assert list(results(out).values()) == ["done", "failed", "done"]
    assert len(list((out / "remembered").iterdir())) == 1, "all start from the same policy"
    assert [file.stat().st_mtime_ns for file in files] == untouched
    table = pd.read_csv(out / "report" / "effects.csv")
    assert list(table[table.measure == "held-out CE"].arm) == ["v, lr=0.0001", "v, lr=0.0002"]


def test_done_runs_need_nothing(ebft, study, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("ebft.study.job.run_in_process", lambda run, **_: work(run))
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    factor = {"model.path": [str(model)], "training.steps": [1]}
    assert ebft("study", str(study(grid=factor)))[0] == 0
    model.rename(tmp_path / "elsewhere")
    status, _, err = ebft("study", str(study(grid=factor)))
    assert (status, "1 of them already done" in err) == (0, True)


def test_a_folder_that_was_moved_goes_on_where_it_is(ebft, study, tmp_path, monkeypatch):
    monkeypatch.setattr("ebft.study.job.run_in_process", lambda run, **_: work(run))
    old, new = tmp_path / "out", tmp_path / "moved"
    file = study(grid={"objective.gamma": [1, 2]})
    monkeypatch.setattr(Study, "_run_all", lambda *_: False)  # out of minutes before its first run
    assert ebft("study", str(file))[0] == 75
    monkeypatch.undo()
    monkeypatch.setattr("ebft.study.job.run_in_process", lambda run, **_: work(run))
    old.rename(new)
    assert ebft("study", str(file), f"output_dir={new}")[0] == 0
    assert list(results(new).values()) == ["done", "done"]
    for name in results(new):
        run = StudyFolder(new).run(name)
        assert len(run.evaluations.read_text().splitlines()) > 2
        assert run.metrics.is_file()
    assert len(list((new / "remembered").iterdir())) == 1
    assert not old.exists()


def test_a_run_from_before_metrics_jsonl_goes_on_and_is_reported_whole(
    ebft, study, tmp_path, monkeypatch
):
    """Its recipe names a logger that is gone, and its first steps are in that logger's file.

    It also has uploads, which a study does not make: with HF_HUB_OFFLINE it could not."""
    monkeypatch.setattr("ebft.study.job.run_in_process", lambda run, **_: work(run))
    file, out = study(keep_checkpoints=True), tmp_path / "out"
    assert ebft("study", str(file))[0] == 0
    (name,) = results(out)
    run = StudyFolder(out).run(name)
    whole = run.steps()
    recipe = yaml.safe_load(run.recipe.read_text())
    recipe["metric_loggers"] = [
        {"_component_": "ebft.study.step_log.StepLog", "file": str(run.former_metrics)}
    ]
    recipe["checkpoint"]["hub"] = {"repo": "me/tiny"}
    run.recipe.write_text(yaml.safe_dump(recipe))
    run.former_metrics.parent.mkdir()
    run.metrics.rename(run.former_metrics)
    run.delete_result()
    shutil.rmtree(run.checkpoints / "step-000003")
    status, _, err = ebft("study", str(file))
    assert status == 0, err
    assert list(results(out)) == [name]
    assert "resuming after step 2" in err
    assert {line.step for line in run.steps()} == {line.step for line in whole}
    assert min(json.loads(line)["step"] for line in run.metrics.read_text().splitlines()) == 3


def test_a_run_whose_checkpoints_are_damaged_does_not_start_again(
    ebft, study, tmp_path, monkeypatch
):
    monkeypatch.setattr("ebft.study.job.run_in_process", lambda run, **_: work(run))
    more = {"keep_checkpoints": True, "variants": {"v": {}}}
    assert ebft("study", str(study(**more)))[0] == 0
    (name,) = results(tmp_path / "out")
    run = StudyFolder(tmp_path / "out").run(name)
    run.delete_result()
    for manifest in run.checkpoints.glob("*/manifest.sha256"):
        manifest.unlink()
    before = sorted(run.output.rglob("*"))
    assert ebft("study", str(study(**more)))[0] == 1
    assert "no checkpoint is whole" in run.result().error
    assert "set overwrite=true or delete them" in run.result().error
    assert sorted(run.output.rglob("*")) == before


@pytest.mark.parametrize("who", [os.getpid, lambda: 0])
@pytest.mark.parametrize(
    ("status", "number"),
    [(130, signal.SIGINT), (-2, signal.SIGINT), (143, signal.SIGTERM), (-15, signal.SIGTERM)],
)
def test_a_run_that_a_signal_stops_has_not_failed(
    ebft, study, tmp_path, monkeypatch, who, status, number
):
    """Whether the study got the signal, or the run's process alone."""

    def stopped(run, **_):
        if pid := who():
            os.kill(pid, number)
        return status

    monkeypatch.setattr("ebft.study.job.run_in_process", stopped)
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    assert ebft("study", str(study(seeds=[0, 1])))[0] == 128 + number
    assert set(results(tmp_path / "out").values()) == {None}
    assert before == [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]


class TestSpentMinutes:
    def test_leave_runs_for_the_same_command(self, ebft, study, tmp_path):
        status, _, err = ebft("study", str(study()), "budget.minutes=1e-9")
        assert status == 75
        assert err.endswith("budget.minutes is spent; run the same command to continue\n")
        assert set(results(tmp_path / "out").values()) == {None}

    def test_hide_no_failure(self, ebft, study, monkeypatch):
        monkeypatch.setattr("ebft.study.job.run_in_process", lambda run, **_: 3)
        monkeypatch.setattr(Study, "_out_of_budget", lambda self, _: bool(self._failures()))
        status, _, err = ebft("study", str(study(seeds=[0, 1])))
        assert status == 1
        assert (
            "budget.minutes is spent; run the same command to continue\nerror: 1 of 2 runs failed"
            in err
        )


def start(*arguments):
    """A study in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "ebft.cli.main", *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def wait_until(condition, process):
    while not condition():
        assert process.poll() is None, "it ended before it was stopped"
        time.sleep(0.02)


def finish(*arguments):
    process = start(*arguments)
    assert process.wait(300) == 0


def same_figures(one, other):
    """Whether two studies' reports are the same but for the time that they took."""
    for name in ("effects.csv", "metrics.csv"):
        a, b = (pd.read_csv(folder / "report" / name) for folder in (one, other))
        if name == "metrics.csv":
            timed = ["tokens_per_second", "memory_gib", "seconds"]
            a, b = (t[~t.measure.isin(timed)].drop(columns="seconds") for t in (a, b))
        pd.testing.assert_frame_equal(a.reset_index(drop=True), b.reset_index(drop=True))


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_study_that_was_stopped_ends_with_the_same_figures(study, tmp_path, how):
    # Enough steps that no run ends before the study has passed the signal on.
    file = study(steps=20, one_at_a_time={"sampler.n": [2]})
    finish("study", str(file))

    killed = tmp_path / "killed"
    command = ["study", str(file), f"output_dir={killed}"]
    process = start(*command)
    # In the middle of the second run.
    wait_until(lambda: len(list(killed.glob("runs/*/output/metrics.jsonl"))) == 2, process)
    (running,) = [
        run for run in killed.glob("runs/*") if (run / "output").exists()
        and not (run / "result.json").exists()
    ]  # fmt: skip
    os.kill(process.pid, how)
    assert process.wait(120) == (-how if how == signal.SIGKILL else 128 + how)
    assert not (running / "result.json").exists()
    finish(*command)
    assert set(results(killed).values()) == {"done"}
    same_figures(tmp_path / "out", killed)


@pytest.mark.slow
def test_two_processes_share_a_study(study, tmp_path):
    file = study(one_at_a_time={"sampler.n": [2]}, seeds=[0, 1])
    both = [start("study", str(file)) for _ in range(2)]
    assert [process.wait(300) for process in both] == [0, 0]
    out = tmp_path / "out"
    assert set(results(out).values()) == {"done"}
    for run in out.glob("runs/*"):
        # Each was run once: the process logs this line when it has set up.
        assert (run / "output.log").read_text().count("evaluated on 3 held-out documents") == 1


@pytest.mark.slow
def test_a_run_whose_process_is_killed_does_not_take_the_study_along(study, tmp_path):
    process = start("study", str(study(one_at_a_time={"sampler.n": [2]})))
    out = tmp_path / "out"

    def children():
        text = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True
        ).stdout
        return [int(pid) for pid in text.split()]

    wait_until(lambda: list(out.glob("runs/*/output/recipe.yaml")) and children(), process)
    os.kill(children()[0], signal.SIGKILL)
    assert process.wait(300) == 1
    assert sorted(results(out).values()) == ["done", "failed"]
    (failed,) = [name for name, status in results(out).items() if status == "failed"]
    assert "signal SIGKILL" in StudyFolder(out).run(failed).result().error


@pytest.mark.slow
def test_each_run_in_two_processes(study, tmp_path):
    """The figures of one process; a run that fails says why, and the others are completed."""
    plain = {
        "optimizer._component_": "torch.optim.SGD",
        "optimizer.momentum": 0.5,
        "lr_scheduler": None,
    }
    factor = {"optimizer.lr": [1.0e-2, 1.0e30]}
    file = study(grid=factor, variants={"v": {"overrides": plain}}, keep_checkpoints=True)
    one, two = tmp_path / "out", tmp_path / "two"
    for processes, folder in ((1, one), (2, two)):
        process = start("study", str(file), f"processes={processes}", f"output_dir={folder}")
        assert process.wait(300) == 1
        assert list(results(folder).values()) == ["done", "failed"]
    done, failed = results(two)
    assert "step 2: " in StudyFolder(two).run(failed).result().error
    shards = two / "runs" / done / "output" / "checkpoints" / "step-000003" / "run" / "shards"
    assert len(list(shards.iterdir())) == 2, "one of each process"
    tables = [pd.read_csv(folder / "report" / "effects.csv") for folder in (one, two)]
    assert len(tables[0]) > 0
    pd.testing.assert_frame_equal(*tables, rtol=1e-4, atol=1e-6)


def test_runs_that_cannot_be_divided_are_refused(ebft, study):
    file = study(processes=2, grid={"training.documents_per_step": [4, 5]})
    status, _, err = ebft("study", str(file))
    assert status == 2
    (line,) = [line for line in err.splitlines() if "cannot be divided over 2 processes" in line]
    assert "processes = 2: " in line
    assert "training.documents_per_step = 5" in line
