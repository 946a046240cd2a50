"""What lies in a study's folder, read back."""

import json
import os

import pytest

from ebft.errors import UserError
from ebft.study.contents import ArmName, Description, Result, StudyPlan
from ebft.study.folder import RunFolder, StudyFolder

RESULTS = {
    "done": (
        Result(status="done", seconds=1.5, surroundings={"python": "3.11"}),
        {"status": "done", "seconds": 1.5, "surroundings": {"python": "3.11"}},
    ),
    "failed": (
        Result(status="failed", seconds=1.5, error="", surroundings={"python": "3.11"}),
        {"status": "failed", "error": "", "seconds": 1.5, "surroundings": {"python": "3.11"}},
    ),
    "killed": (
        Result(status="failed", seconds=1.5, error="signal SIGKILL"),
        {"status": "failed", "error": "signal SIGKILL", "seconds": 1.5},
    ),
}
PLANNED = {
    "title": "temperatures",
    "command": "ebft study temperatures.yaml",
    "study": "recipe: study\n",
    "reference": "¼",
    "factors": {"sampler.temperature": ["¼", "1"]},
    "runs": ["¼-seed0", "1-seed0"],
}
DESCRIBED = {
    "arms": [{"label": "¼", "variant": "", "levels": {"sampler.temperature": "¼"}}],
    "seed": 0,
    "steps": 4,
    "tflop": None,
    "keep_checkpoints": True,
    "processes": 1,
}


def as_written(content):
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


@pytest.mark.parametrize(("result", "content"), RESULTS.values(), ids=RESULTS)
def test_a_result_is_read_back(tmp_path, result, content):
    run = RunFolder(tmp_path)
    assert run.result() is None
    run.write_result(result)
    assert (tmp_path / "result.json").read_text(encoding="utf-8") == as_written(content)
    assert run.result() == result
    run.delete_result()
    assert run.result() is None


def test_a_description_is_read_back(tmp_path):
    run, arm = RunFolder(tmp_path), ArmName("¼", "", {"sampler.temperature": "¼"})
    description = Description(arms=[arm], seed=0, steps=4, tflop=None, keep_checkpoints=True)
    assert run.description() is None
    run.write_description(description)
    assert (tmp_path / "run.json").read_text(encoding="utf-8") == as_written(DESCRIBED)
    assert run.description() == description
    older = {key: value for key, value in DESCRIBED.items() if key != "processes"}
    (tmp_path / "run.json").write_text(as_written(older), encoding="utf-8")
    assert run.description() == description


def test_a_plan_is_read_back(tmp_path):
    folder, plan = StudyFolder(tmp_path), StudyPlan(**PLANNED)
    assert folder.plan() is None
    folder.write_plan(plan)
    assert (tmp_path / "plan.json").read_text(encoding="utf-8") == as_written(PLANNED)
    assert folder.plan() == plan


@pytest.mark.parametrize("content", [b"", b'{"status": "do', b"\xff{}", b"[]"])
def test_a_damaged_one_is_named(tmp_path, content):
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(UserError) as raised:
        RunFolder(tmp_path).result()
    assert str(raised.value).startswith(f"{tmp_path / 'result.json'} is damaged: ")
    assert "delete it and run the study's command, which writes it again" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_report_of_a_damaged_study_is_one_clear_line(ebft, tmp_path):
    (tmp_path / "plan.json").write_text('{"title": ')
    status, _, err = ebft("report", str(tmp_path))
    assert status == 2
    assert err.startswith(f"{tmp_path / 'plan.json'} is damaged: ")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "name", ["recipe.yaml", "output.log", "output/evaluations.jsonl", "output/metrics.jsonl"]
)
def test_a_pipe_in_the_place_of_a_file_is_refused(tmp_path, name):
    (tmp_path / "output").mkdir()
    run = RunFolder(tmp_path)
    run.check()
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=f"{name}: it is a folder, a pipe or a device"):
        run.check()
