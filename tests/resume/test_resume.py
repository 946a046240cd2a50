"""A run that was stopped and resumed is the run that was not stopped, to the last bit."""

import json
import os
import shutil
import signal

import pytest
import torch
from transformers import AutoModelForCausalLM

from ebft.checkpoints.manifest import MANIFEST, write_manifest
from ebft.checkpoints.nested import read_nested
from ebft.runs.progress import Progress
from tests.resume.common import AHEAD, STATEFUL, assert_same_checkpoints, checkpoint, logged_steps


@pytest.fixture
def stop_after(monkeypatch):
    """Makes runs be interrupted after so many steps, as Ctrl-C does."""
    shown = Progress.step

    def stop(steps: int | None) -> None:
        def step(self, step, metrics):
            shown(self, step, metrics)
            if step.number + 1 == steps:
                os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(Progress, "step", step)

    return stop


@pytest.mark.parametrize("stopped_at", [5, 6])
def test_ten_steps_are_some_and_the_rest(ebft, tiny_run, tmp_path, stop_after, stopped_at):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert ebft(*tiny_run(*STATEFUL, f"output_dir={whole}"))[0] == 0
    stop_after(stopped_at)
    assert ebft(*tiny_run(*STATEFUL, f"output_dir={parts}"))[0] == 130
    stop_after(None)
    status, out, err = ebft(*tiny_run(*STATEFUL, f"output_dir={parts}", "checkpoint.resume=auto"))
    assert status == 0, err
    assert f"resuming after step {stopped_at}" in err
    assert_same_checkpoints(checkpoint(whole, 10), checkpoint(parts, 10))
    assert (whole / "evaluations.jsonl").read_text() == (parts / "evaluations.jsonl").read_text()
    assert logged_steps(parts) == list(range(1, 11))
    assert "before → after" in out
    AutoModelForCausalLM.from_pretrained(checkpoint(parts, 10))


def test_rollouts_that_were_sampled_ahead_are_part_of_the_checkpoint(
    ebft, tiny_run, tmp_path, stop_after
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert ebft(*tiny_run(*STATEFUL, *AHEAD, f"output_dir={whole}"))[0] == 0
    stop_after(5)
    assert ebft(*tiny_run(*STATEFUL, *AHEAD, f"output_dir={parts}"))[0] == 130
    stop_after(None)
    rest = [*STATEFUL, *AHEAD, f"output_dir={parts}", "checkpoint.resume=auto"]
    status, _, err = ebft(*tiny_run(*rest))
    assert status == 0, err
    assert_same_checkpoints(checkpoint(whole, 10), checkpoint(parts, 10))
    state = read_nested(checkpoint(parts, 10) / "run" / "state")
    assert state["parts"]["sampler"]["pending"]["step"] == 10, "for a run with more steps"
    assert all(0 < step["importance_effective"] < 1 for step in state["metrics"][1:])
    assert "sampling_wait_seconds" in state["metrics"][0]


def test_sft_is_resumed_too(ebft, tiny_run, tmp_path, stop_after):
    """Its recipe has no sampler, reward or baseline."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    sft = {"recipe": "sft_full"}
    assert ebft(*tiny_run(f"output_dir={whole}", **sft))[0] == 0
    stop_after(2)
    assert ebft(*tiny_run(f"output_dir={parts}", **sft))[0] == 130
    stop_after(None)
    assert ebft(*tiny_run(f"output_dir={parts}", "checkpoint.resume=auto", **sft))[0] == 0
    assert_same_checkpoints(checkpoint(whole, 3), checkpoint(parts, 3))


def test_what_was_done_after_the_checkpoint_is_not_logged_twice(ebft, tiny_run, tmp_path):
    """As after a crash: the run had gone on beyond its newest checkpoint."""
    run = tmp_path / "run"
    assert ebft(*tiny_run(*STATEFUL))[0] == 0
    for step in (8, 10):
        shutil.rmtree(checkpoint(run, step))
    with (run / "metrics.jsonl").open("a") as log:
        log.write('{"step": 11, "ce": 0.')
    assert ebft(*tiny_run(*STATEFUL, "checkpoint.resume=auto"))[0] == 0
    assert logged_steps(run) == list(range(1, 11))
    lines = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 0, 5, 5, 10, 10]


def test_auto_starts_from_the_beginning_when_there_is_nothing(ebft, tiny_run, tmp_path):
    status, _, err = ebft(*tiny_run("checkpoint.resume=auto"))
    assert status == 0
    assert "no checkpoint to resume; starting from the beginning" in err
    shutil.rmtree(tmp_path / "run" / "checkpoints")  # killed before the first one
    status, _, err = ebft(*tiny_run("checkpoint.resume=auto"))
    assert status == 0
    assert len((tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()) == 6


def test_auto_removes_no_other_run_and_nobody_s_files(ebft, tiny_run, tmp_path):
    run, auto = tmp_path / "run", "checkpoint.resume=auto"
    assert ebft(*tiny_run("training.steps=1"))[0] == 0
    (run / "slurm-12.out").write_text("from the scheduler\n")
    (run / "checkpoints" / "step-000001").rename(run / "checkpoints" / "step-000001-good")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    status, _, err = ebft(*tiny_run("training.steps=1", "optimizer.lr=1", auto))
    assert status == 2
    assert f"output_dir = {run}: there is no checkpoint to resume from, and that folder" in err
    assert "it differs in optimizer.lr" in err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before

    status, _, err = ebft(*tiny_run("training.steps=1", "optimizer.lr=1", auto, "overwrite=true"))
    assert status == 0, err
    assert (run / "slurm-12.out").exists()
    assert logged_steps(run) == [1]
    assert len((run / "evaluations.jsonl").read_text().splitlines()) == 4

    good = run / "checkpoints" / "step-000001-good"
    back = [f"checkpoint.resume={good}", "training.steps=2", "lr_scheduler=null"]
    back.append("checkpoint.may_differ=[lr_scheduler]")
    status, _, err = ebft(*tiny_run(*back, "overwrite=true"))
    assert status == 0, err
    assert f"resuming after step 1, from {good}" in err
    assert {it.name for it in good.parent.iterdir()} == {good.name, "step-000002"}


def test_auto_on_a_run_that_is_done_reports_again(ebft, tiny_run):
    assert ebft(*tiny_run())[0] == 0
    status, out, err = ebft(*tiny_run("checkpoint.resume=auto"))
    assert status == 0, err
    assert "before → after" in out
    assert "evaluating" not in err


@pytest.fixture
def three_steps(ebft, tiny_run, tmp_path):
    """A run of three steps with a checkpoint of each, for tests that resume it."""
    assert ebft(*tiny_run("checkpoint.every=1", "checkpoint.keep=9"))[0] == 0
    return tmp_path / "run"


def test_auto_skips_what_is_damaged_and_says_why(ebft, tiny_run, three_steps):
    newest, before = checkpoint(three_steps, 3), checkpoint(three_steps, 2)
    model = newest / "model.safetensors"
    original = model.read_bytes()
    model.write_bytes(original[: len(original) // 2])
    (before / "manifest.sha256").unlink()
    status, _, err = ebft(*tiny_run("checkpoint.resume=auto"))
    assert status == 0
    assert f"skipped {newest}: model.safetensors is not what was written" in err
    assert f"skipped {before}: it has no manifest.sha256; it is now {before}.damaged" in err
    assert "resuming after step 1" in err
    assert (newest / "model.safetensors").read_bytes() == original


def test_auto_does_not_start_again_when_all_are_damaged(ebft, tiny_run, three_steps):
    for step in (1, 2, 3):
        (checkpoint(three_steps, step) / "manifest.sha256").unlink()
    status, _, err = ebft(*tiny_run("checkpoint.resume=auto"))
    assert status == 2
    assert "no checkpoint is whole" in err
    assert "to start again from the beginning, set overwrite=true" in err
    status, _, err = ebft(*tiny_run("checkpoint.resume=auto", "overwrite=true"))
    assert status == 0
    for step in (1, 2, 3):
        assert f"cannot resume from {checkpoint(three_steps, step)}: it has no manifest" in err


def test_from_an_earlier_checkpoint_into_another_folder(ebft, tiny_run, three_steps, tmp_path):
    other = tmp_path / "other"
    arguments = [f"output_dir={other}", f"checkpoint.resume={checkpoint(three_steps, 2)}"]
    assert ebft(*tiny_run(*arguments))[0] == 0
    assert_same_checkpoints(checkpoint(three_steps, 3), checkpoint(other, 3))
    assert logged_steps(other) == [3]


def test_going_back_in_the_same_folder_gives_up_what_came_after(ebft, tiny_run, three_steps):
    resume = f"checkpoint.resume={checkpoint(three_steps, 1)}"
    status, _, err = ebft(*tiny_run(resume))
    assert status == 2
    assert "the run continued to step-000003, which would be lost" in err
    assert ebft(*tiny_run(resume, "overwrite=true"))[0] == 0
    assert logged_steps(three_steps) == [1, 2, 3]


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["checkpoint.resume=nowhere"], "checkpoint.resume = nowhere: no such folder"),
        (["training.steps=2"], "has already done 3 steps; set training.steps=3 or more"),
        (["seed=1"], "seed: 0 in the checkpoint, 1 now"),
        (["optimizer.lr=1"], "optimizer.lr: 0.0001 in the checkpoint, 1 now"),
        (["baseline=none"], "baseline._component_: leave_one_out in the checkpoint, none now"),
        (["transforms=[{_component_: l2}]"], "checkpoint.may_differ=[transforms,transforms.0"),
        (["evaluation.documents=2"], "evaluation.documents: 3 in the checkpoint, 2 now"),
    ],
)
def test_another_run_is_refused(ebft, tiny_run, three_steps, overrides, says):
    before = sorted(path for path in three_steps.rglob("*"))
    status, _, err = ebft(*tiny_run("checkpoint.resume=auto", *overrides))
    assert status == 2
    assert says in err
    assert before == sorted(path for path in three_steps.rglob("*"))


def test_a_refused_step_back_takes_nothing_away(ebft, tiny_run, three_steps, tmp_path):
    back = [f"checkpoint.resume={checkpoint(three_steps, 1)}", "overwrite=true"]
    before = sorted(three_steps.rglob("*"))
    for refused in (["seed=1"], ["training.steps=0"], ["data.held_out=0.5"]):
        assert ebft(*tiny_run(*back, *refused))[0] == 2
        assert before == sorted(three_steps.rglob("*")), refused


def test_overwriting_does_not_delete_what_it_starts_from(ebft, tiny_run, three_steps, tmp_path):
    """Nor a later one of its own that it goes back behind; however the path is spelt."""
    source, copy = checkpoint(three_steps, 3), checkpoint(three_steps, 3) / "copy"
    shutil.copytree(source, tmp_path / "copied")
    (tmp_path / "copied").rename(copy)
    link = tmp_path / "link"
    link.symlink_to(three_steps)
    back = [f"checkpoint.resume={checkpoint(three_steps, 1)}", "checkpoint.may_differ=[model]"]
    before = sorted(three_steps.rglob("*"))
    for key, value, more in (
        ("model.path", checkpoint(link, 3), []),
        ("model.base", source, []),
        ("model.base", source, back),
        ("checkpoint.resume", copy, []),
    ):
        status, _, err = ebft(*tiny_run(f"{key}={value}", *more, "overwrite=true"))
        assert status == 2, key
        assert f"{key} = {value}: overwrite=true would delete it" in err
        assert sorted(three_steps.rglob("*")) == before


def test_other_files_are_left_alone(ebft, tiny_run, three_steps, tmp_path):
    """A copy of a checkpoint, notes beside it, and what other loggers have written."""
    saved = three_steps / "checkpoints"
    good = shutil.copytree(saved / "step-000002", saved / "step-000002-good")
    (saved / "step-000003" / "notes.txt").write_text("promising")
    theirs = three_steps / "logs" / "log_1700000000.txt"
    theirs.parent.mkdir()
    theirs.write_text("Step 9 | ce:0.1\n")
    more = ["training.steps=5", "checkpoint.keep=1", "checkpoint.every=1", "checkpoint.resume=auto"]
    status, _, err = ebft(*tiny_run(*more))
    assert status == 0, err
    assert "resuming after step 3" in err
    assert sorted(path.name for path in saved.iterdir()) == [good.name, "step-000005"]
    assert theirs.read_text() == "Step 9 | ce:0.1\n"


def test_other_micro_batches_are_mentioned(ebft, tiny_run):
    assert ebft(*tiny_run())[0] == 0
    more = ["training.steps=4", "checkpoint.resume=auto", "training.micro_batch=1"]
    status, _, err = ebft(*tiny_run(*more))
    assert status == 0, err
    assert "results are the same to rounding, but not bit for bit" in err


def test_documents_that_have_changed_are_noticed(ebft, tiny_run, python_folder, tmp_path):
    folder = shutil.copytree(python_folder, tmp_path / "texts")
    own = f"data.path={folder}"
    assert ebft(*tiny_run(own))[0] == 0
    file = next(folder.iterdir())
    file.write_text(file.read_text() + "a")
    more = ["training.steps=4", "checkpoint.resume=auto"]
    status, _, err = ebft(*tiny_run(own, *more))
    assert status == 2
    assert "the content of its files has changed: data: " in err
    allowed = "checkpoint.may_differ=[data,evaluation]"
    assert ebft(*tiny_run(own, *more, allowed))[0] == 0


@pytest.mark.parametrize("on_demand", ["true", "false"])
def test_rows_that_have_changed_under_the_same_time_are_noticed(
    ebft, tiny_run, python_folder, tmp_path, on_demand
):
    file = tmp_path / "texts.jsonl"
    texts = [source.read_text() for source in sorted(python_folder.iterdir())]

    def write():
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        os.utime(file, (1_600_000_000, 1_600_000_000))

    own = [
        "data=files", f"data.path={file}", "data.completion=text",
        f"documents.on_demand={on_demand}",
    ]  # fmt: skip
    more = [*own, "training.steps=4", "checkpoint.resume=auto"]
    write()
    assert ebft(*tiny_run(*own))[0] == 0
    texts[0] = texts[0][::-1]
    write()
    status, _, err = ebft(*tiny_run(*more))
    assert status == 2
    assert "the content of its files has changed: data: " in err


def test_a_base_model_that_has_changed_is_noticed(ebft, tiny_run, tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "base")
    own = f"model.path={folder}"
    assert ebft(*tiny_run(own))[0] == 0
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.norm.weight += 1
    model.save_pretrained(folder)
    status, _, err = ebft(*tiny_run(own, "training.steps=4", "checkpoint.resume=auto"))
    assert status == 2
    assert "the content of its files has changed: model: " in err


def test_more_steps_and_the_schedule_that_depends_on_them(ebft, tiny_run, tmp_path):
    assert ebft(*tiny_run())[0] == 0
    status, _, err = ebft(*tiny_run("training.steps=6", "checkpoint.resume=auto"))
    assert status == 0, err
    assert "training.steps: 3 in the checkpoint, 6 now" in err
    assert "lr_scheduler.num_training_steps: 3 in the checkpoint, 6 now" in err
    # Three steps of warm-up, and then what is a half-cosine over six steps at its start.
    assert "the learning rate continues at 0.0001" in err
    metrics = read_nested(checkpoint(tmp_path / "run", 6) / "run" / "state")["metrics"]
    rates = [step["learning_rate"] for step in metrics]
    assert rates == pytest.approx([0, 1e-4 / 3, 2e-4 / 3, 1e-4, 0.75e-4, 0.25e-4])


@pytest.mark.parametrize("theirs_first", [True, False])
def test_a_run_with_torchtunes_schedule_goes_on_with_transformers(
    ebft, tiny_run, tmp_path, theirs_first
):
    pytest.importorskip("torchtune")
    theirs = [
        "lr_scheduler._component_=torchtune.training.get_cosine_schedule_with_warmup",
        "lr_scheduler.num_warmup_steps=3", "lr_scheduler.num_training_steps=4",
    ]  # fmt: skip
    first, then = (theirs, []) if theirs_first else ([], theirs)
    whole = [f"output_dir={tmp_path / 'whole'}", "lr_scheduler.num_training_steps=4"]
    assert ebft(*tiny_run("training.steps=4", *whole))[0] == 0
    steps = ["lr_scheduler.num_training_steps=4"]
    assert ebft(*tiny_run("training.steps=2", *steps, *first))[0] == 0
    status, _, err = ebft(*tiny_run("training.steps=4", *steps, *then, "checkpoint.resume=auto"))
    assert status == 0, err
    parted, at_once = (
        read_nested(checkpoint(tmp_path / run, 4) / "run" / "state")["metrics"]
        for run in ("run", "whole")
    )
    for name in ("learning_rate", "ce", "grad_norm"):
        assert [step[name] for step in parted] == [step[name] for step in at_once]


def test_another_optimizer_or_baseline_if_the_user_says_so(ebft, tiny_run):
    assert ebft(*tiny_run("baseline=moving_average"))[0] == 0
    changes = ["optimizer._component_=torch.optim.SGD", "optimizer.lr=0.1", "baseline.decay=0.5"]
    allow = "checkpoint.may_differ=[optimizer,baseline.decay]"
    more = ["baseline=moving_average", "training.steps=4", "checkpoint.resume=auto"]
    status, _, err = ebft(*tiny_run(*more, *changes, allow))
    assert status == 0, err
    assert "optimizer has changed; it starts with fresh state" in err
    assert "baseline has changed; it starts with fresh state" in err


def test_the_best_checkpoint_is_kept(ebft, tiny_run, tmp_path):
    every = ["checkpoint.every=1", "evaluation.every=1", "checkpoint.keep=1"]
    worse = ["optimizer.lr=0.1", "lr_scheduler=null", "training.steps=4"]
    status, _, err = ebft(*tiny_run(*every, *worse, "checkpoint.best=held-out CE"))
    assert status == 0, err
    run = tmp_path / "run"
    lines = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    means = {x["step"]: x["mean"] for x in lines if x["name"] == "held-out CE" and x["step"]}
    best = min(means, key=means.get)
    kept = {path.name for path in (run / "checkpoints").iterdir()}
    assert kept == {f"step-{best:06d}", "step-000004"}


def test_a_best_that_nothing_measures(ebft, tiny_run):
    status, _, err = ebft(*tiny_run("checkpoint.best=held-out CR"))
    assert status == 2
    assert "checkpoint.best = held-out CR: no evaluator measures that; did you mean" in err


def test_an_optimizers_state_that_no_update_could_use(ebft, tiny_run, tmp_path):
    assert ebft(*tiny_run("training.steps=1", "checkpoint.every=1"))[0] == 0
    damaged = checkpoint(tmp_path / "run", 1)
    file = damaged / "run" / "state.json"
    state = json.loads(file.read_text())
    state["optimizer"]["state"]["$items"][0][1]["exp_avg"] = "x"
    file.write_text(json.dumps(state))
    (damaged / MANIFEST).unlink()
    write_manifest(damaged)
    more = [f"checkpoint.resume={damaged}", f"output_dir={tmp_path / 'other'}", "training.steps=2"]
    status, _, err = ebft(*tiny_run("checkpoint.every=1", *more))
    assert status == 2
    assert "does not fit optimizer: ValueError('exp_avg is a tensor for some" in err
