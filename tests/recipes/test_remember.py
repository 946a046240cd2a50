"""What is measured before the first step is measured once for runs that start alike."""

import json

import pytest


@pytest.fixture
def before(ebft, tiny_run, tmp_path):
    """Runs a recipe that remembers in `tmp_path/kept`; returns what it measured before step 1."""

    def run(name: str, *overrides: str):
        folder = tmp_path / name
        where = [f"output_dir={folder}", f"evaluation.remember={tmp_path / 'kept'}"]
        status, _, err = ebft(*tiny_run(*where, *overrides))
        assert status == 0, err
        lines = [json.loads(line) for line in (folder / "evaluations.jsonl").open()]
        return [line for line in lines if line["step"] == 0]

    return run


def kept(tmp_path):
    return sorted((tmp_path / "kept").iterdir())


def test_another_reward_takes_what_was_measured(before, tmp_path):
    first = before("first")
    (file,) = kept(tmp_path)
    marked = json.loads(file.read_text())
    for measurement in marked.values():
        measurement["value"] = [value + 1 for value in measurement["value"]]
    file.write_text(json.dumps(marked))
    second = before("second", "reward.diversity=0", "training.steps=1")
    assert kept(tmp_path) == [file]
    assert len(first) == len(second) > 1
    for one, other in zip(first, second, strict=True):
        assert other["values"] == [value + 1 for value in one["values"]], "it was read"
        assert {key: other[key] for key in ("name", "unit", "weights", "documents_digest")} == {
            key: one[key] for key in ("name", "unit", "weights", "documents_digest")
        }


@pytest.mark.parametrize(
    "other",
    ["seed=1", "evaluation.documents=2", "evaluation.evaluators.1.n=3", "data.held_out=0.5"],
)
def test_runs_that_would_measure_something_else_do_not(before, tmp_path, other):
    before("first", "training.steps=1")
    before("second", "training.steps=1", other)
    assert len(kept(tmp_path)) == 2


def test_it_is_what_would_be_measured(before, tmp_path):
    (tmp_path / "kept").mkdir()
    first = before("first", "training.steps=1")
    assert before("second", "training.steps=1", "optimizer.lr=0.01") == first
    assert before("third", "training.steps=1", "evaluation.remember=null") == first


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_measured(
    ebft, tiny_run, tmp_path, monkeypatch
):
    def measured(*_, **__):
        raise AssertionError("it was measured first")

    monkeypatch.setattr("ebft.runs.measuring.measure", measured)
    status, _, err = ebft(*tiny_run("evaluation.remember=/proc/nope"))
    assert status == 2
    assert "evaluation.remember = /proc/nope: cannot be written: No such file" in err
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_a_damaged_file_is_named(before, ebft, tiny_run, tmp_path):
    before("first", "training.steps=1")
    (file,) = kept(tmp_path)
    file.write_text("{")
    status, _, err = ebft(
        *tiny_run(f"output_dir={tmp_path / 'second'}", f"evaluation.remember={tmp_path / 'kept'}")
    )
    assert status == 2
    assert f"{file} is damaged: " in err
    assert "; delete it, and the base model is measured again" in err
    assert "Traceback" not in err
