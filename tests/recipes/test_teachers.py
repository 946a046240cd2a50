"""Recipes whose reward or references come from a teacher."""

import json
import shutil

import pytest

from ebft.testing import write_tiny_model


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A tiny model with other weights than the policy's."""
    return write_tiny_model(tmp_path_factory.mktemp("teacher"), seed=1)


def steps(tmp_path):
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    return [step for step in map(json.loads, lines) if "seconds" in step]


NOTHING_ELSE = ["feature_map=null", "transforms=[]", "evaluation.evaluators=[]"]


def distilled(tiny_run, teacher, *more):
    """Arguments of a run whose reward is that teacher's alone."""
    return tiny_run(f"reward={{_component_: reverse_kl, teacher: {teacher}}}", *NOTHING_ELSE, *more)


def test_distillation_by_reverse_kl_needs_no_features(ebft, tiny_run, teacher, tmp_path):
    status, _, err = ebft(*distilled(tiny_run, teacher))
    assert status == 0, err
    assert "biased" not in err
    rewards = [step["reward"] for step in steps(tmp_path)]
    assert all(reward < 0 for reward in rewards), "−KL of different models"


def test_a_teachers_rollouts_are_references(ebft, tiny_run, teacher, tmp_path):
    feature_map = "{_component_: teacher_references, m: 2, feature_map: {_component_: layer_concat}"
    status, _, err = ebft(
        *tiny_run(f"feature_map={feature_map}, teacher: {teacher}}}", "evaluation.evaluators=[]")
    )
    assert status == 0, err
    assert "biased" not in err
    assert all("cfm" in step for step in steps(tmp_path))


def test_a_dry_run_counts_the_teachers_weights(ebft, tiny_run, teacher):
    status, out, err = ebft(*distilled(tiny_run, teacher), "--dry-run")
    assert status == 0, err
    assert "other models" in out
    assert f"{teacher}: what it computes is not counted" in out


def refused(ebft, arguments):
    status, _, err = ebft(*arguments)
    assert status != 0
    assert "Traceback" not in err
    return err


def test_a_teacher_with_other_tokens_is_refused(ebft, tiny_run, teacher, tmp_path):
    other = shutil.copytree(teacher, tmp_path / "other")
    file = other / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["é"] = vocabulary.pop("a")
    file.write_text(json.dumps(tokenizer))
    err = refused(
        ebft, tiny_run(f"reward={{_component_: reverse_kl, teacher: {other}}}", *NOTHING_ELSE)
    )
    assert f"teacher = {other}: its tokens are not those of the policy; give a model" in err


def test_a_teacher_that_is_not_there_is_refused(ebft, tiny_run):
    err = refused(
        ebft, tiny_run("reward={_component_: reverse_kl, teacher: /nowhere}", *NOTHING_ELSE)
    )
    assert "teacher = /nowhere: no such folder" in err
