"""Every run leaves a page, and `ebft report` makes it again from the run's files."""

import json

import pytest


def test_a_run_leaves_its_page(ebft, tiny_run, tmp_path):
    run = tmp_path / "run"
    wanted = tiny_run("training.show_rollouts_every=1", "training.steps=6")
    status, _, err = ebft(*wanted)
    assert status == 0, err
    assert err.rstrip().endswith(f"page: {run / 'report.html'}")
    page = (run / "report.html").read_text()
    assert "<h1>EBFT of model" in page
    assert "6 of 6 steps" in page
    assert all(f"<summary>rollouts of step {step}</summary>" in page for step in range(1, 7))
    assert page.count("<img") > 10
    # Made again it is the same, and it says what is wrong with a file that it cannot read.
    (run / "report.html").unlink()
    assert ebft("report", str(run)) == (0, f"{run / 'report.html'}\n", "")
    assert (run / "report.html").read_text() == page
    (run / "rollouts.jsonl").write_text("{}\n")
    status, _, err = ebft("report", str(run))
    assert status == 2
    assert err.startswith(f"{run / 'rollouts.jsonl'} is damaged: line 1: ")


def test_rollouts_of_steps_that_a_resumed_run_repeats_are_logged_once(ebft, tiny_run, tmp_path):
    file = tmp_path / "run" / "rollouts.jsonl"
    every = "training.show_rollouts_every=1"
    assert ebft(*tiny_run(every))[0] == 0
    before = file.read_text()
    (tmp_path / "run" / "checkpoints" / "step-000003").rename(tmp_path / "aside")
    assert ebft(*tiny_run(every, "checkpoint.resume=auto"))[0] == 0
    assert file.read_text() == before
    starts = (tmp_path / "run" / "environment.jsonl").read_text().splitlines()
    assert len(starts) == 2
    # Another run in the folder begins anew.
    assert ebft(*tiny_run("training.steps=1", "overwrite=true"))[0] == 0
    assert {json.loads(line)["step"] for line in file.read_text().splitlines()} == {1}
    assert len((tmp_path / "run" / "environment.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("left", ["recipe.yaml", "environment.jsonl"])
def test_a_run_that_was_stopped_before_its_first_figure_is_no_run(ebft, tiny_run, tmp_path, left):
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text("recipe: finetune\n")
    (run / left).write_text((run / left).read_text() if left == "recipe.yaml" else "{}\n")
    assert ebft(*tiny_run("training.steps=1"))[0] == 0
