"""`ebft noise` through the command line, on a tiny model."""

import json
from pathlib import Path

import pytest
import torch

from ebft.scoring.pairs import Ratio
from tests.benchmarks.noise import Comparison, follow
from tests.conftest import RECIPES


@pytest.fixture
def noise(ebft, tiny_run):
    """`ebft noise` of a tiny recipe; `more` comes after the overrides."""

    def run(*more, recipe="ebft_full", overrides=()):
        return ebft("noise", *tiny_run(*overrides, recipe=recipe)[1:], "--documents", "12", *more)

    return run


def record(tmp_path):
    return json.loads((tmp_path / "run" / "noise.json").read_text())


def numbers(value, key=""):
    """Every number in a record, by its path."""
    if isinstance(value, dict):
        return {k: v for name in value for k, v in numbers(value[name], f"{key}.{name}").items()}
    if isinstance(value, list):
        return {k: v for i, it in enumerate(value) for k, v in numbers(it, f"{key}.{i}").items()}
    return {key: value} if isinstance(value, int | float) else {}


def test_a_table_a_picture_and_figures(noise, tmp_path):
    status, out, err = noise()
    assert status == 0, err
    for text in (
        "gradients of 12 documents", "documents for signal = noise", "from rollouts", "γ of equal",
        "other n, relative to the recipe's", "recommended", "a run that closes 0.02 of the gap",
        "τ of reward and token overlap", "contexts with a spread of rewards",
    ):  # fmt: skip
        assert text in out, text
    assert (tmp_path / "run" / "noise.png").read_bytes().startswith(b"\x89PNG")
    found = record(tmp_path)
    assert (found["documents"], found["seed"]) == (12, 0)
    (one,) = found["alternatives"]
    assert (one["n"], one["documents_per_step"], one["override"]) == (4, 4, None)
    noise_of = one["policy_gradient"]
    assert noise_of["noise_of_rollouts"]["value"] > 0
    assert [it["n"] for it in one["other_n"]] == [2, 3, 4, 6, 8, 12, 16]
    assert one["gap"] > 0
    # Nothing was trained, and nothing else written.
    written = {file.name for file in (tmp_path / "run").iterdir()}
    assert written == {"noise.json", "noise.png"}


def test_what_was_measured_can_be_trained_in_the_same_folder(noise, ebft, tiny_run):
    assert noise()[0] == 0
    status, _, err = ebft(*tiny_run())
    assert status == 0, err


def test_the_same_command_finds_the_same(noise, tmp_path):
    found = []
    for _ in range(2):
        assert noise()[0] == 0
        one = record(tmp_path)
        found.append({key: one[key] for key in one if key not in ("seconds", "flop_per_second")})
        for run in found[-1]["alternatives"][0]["runs"]:
            del run["hours"]
    assert numbers(found[0]) == pytest.approx(numbers(found[1]), rel=1e-9)


def test_another_seed_measures_other_documents(noise, tmp_path):
    found = []
    for seed in ("0", "1"):
        assert noise("--seed", seed)[0] == 0
        found.append(record(tmp_path)["alternatives"][0]["cross_entropy"]["signal"]["value"])
    assert found[0] != found[1]


def test_alternatives_side_by_side(noise, tmp_path):
    """n = 8 measured is n = 8 predicted from 4, and the same as measured alone."""
    transforms = (
        "transforms=[{_component_: whiten_running}],[{_component_: whiten_context_authors}]"
    )
    status, out, err = noise("--vary", "sampler.n=8", transforms)
    assert status == 0, err
    assert "sampler.n=8" in out
    four, eight, running, by_context = record(tmp_path)["alternatives"]
    assert eight["override"] == "sampler.n=8"
    predicted = {it["n"]: it["noise"]["value"] for it in four["other_n"]}
    parts = eight["policy_gradient"]
    measured = parts["noise_of_rollouts"]["value"] + parts["noise_of_documents"]["value"]
    # Eight of four's sixteen rollouts are eight's first half: the estimates share much noise.
    assert measured == pytest.approx(predicted[8], rel=0.25)
    assert eight["noise_flop_relative_to_first"]["value"] < 1
    assert four["noise_flop_relative_to_first"] is None
    assert running["noise_flop_relative_to_first"] is None
    assert running["other_n"]
    # 2n rollouts would be whitened otherwise, so other n are not predicted.
    assert [it["n"] for it in by_context["other_n"]] == [4]
    assert numbers(four["cross_entropy"]) == pytest.approx(numbers(eight["cross_entropy"]))

    assert noise(overrides=["sampler.n=8"])[0] == 0
    (alone,) = record(tmp_path)["alternatives"]
    found = numbers(alone["policy_gradient"])
    assert found == pytest.approx(numbers(eight["policy_gradient"]), rel=1e-6)


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("sft_full", []),
        ("ebft_full", ["reward=token_overlap"]),
        ("ebft_full", ["sampler.n=2"]),
        ("ebft_full", ["reward=token_overlap", "baseline=moving_average", "sampler.n=1"]),
        ("ebft_full", ["baseline=group_normalised"]),
        ("ebft_full", ["objective.gamma=0", "training.gradient_checkpointing=true"]),
        ("ebft_lora", []),
    ],
    ids=["SFT", "a score of texts", "two", "one", "biased", "no cross-entropy", "LoRA"],
)
def test_every_kind_of_recipe(noise, tmp_path, recipe, overrides):
    status, out, err = noise(recipe=recipe, overrides=overrides)
    assert status == 0, err
    (one,) = record(tmp_path)["alternatives"]
    assert one["cross_entropy"]["noise_scale"]["low"] > 0
    if recipe == "sft_full":
        assert one["policy_gradient"] is None
        assert "policy gradient" not in out
    else:
        assert one["policy_gradient"]["noise_of_rollouts"]["value"] > 0
        assert one["n"] in [it["n"] for it in one["other_n"]]


def test_completions_are_compared_with_the_recipes_verifier(ebft, tiny_model, tmp_path):
    rows = [{"question": f"a b {c}", "answer": "d"} for c in "abcdefghijklmnopqrs"]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluator = (
        "evaluation.evaluators=[{_component_: accuracy, verifier: exact_match, n: 4, k: [1]}]"
    )
    status, _, err = ebft(
        "noise", str(RECIPES / "ebft_full.yaml"), f"model.path={tiny_model}",
        "data=files", f"data.path={file}", "data.prompt=question", "data.completion=answer",
        "data.held_out=0.3", "documents.length=16", "plan=completion", "plan.rollout_length=3",
        evaluator, f"output_dir={tmp_path / 'run'}", "--documents", "12",
    )  # fmt: skip
    assert status == 0, err
    (one,) = record(tmp_path)["alternatives"]
    assert set(one["tau"]) == {"token overlap", "verifier"}


def test_gradients_leave_the_policy_as_it_is(noise, tmp_path, tiny_model):
    weights = tiny_model / "model.safetensors"
    before = weights.read_bytes()
    assert noise()[0] == 0
    assert weights.read_bytes() == before
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--documents", "3"], "--documents 3: intervals need 8 or more"),
        (["--effect", "0"], "--effect 0.0: a share of the gap is above 0, and at most 1"),
        (["--effect", "nan"], "--effect nan: a share of the gap"),
        (["--vary", "sampler.n"], "a variation is key=value,value"),
        (["--vary", "data.held_out=0.5"], "data cannot differ"),
        (["--vary", "plan.start=36"], "--vary plan.start=36: its plan does not accept"),
        (["--vary", "sampler.m=3"], "sampler.m"),
        (["--seed", "-1"], "seed"),
    ],
)
def test_mistakes_are_explained(noise, tmp_path, more, says):
    status, _, err = noise(*more)
    assert status == 2
    assert says in err
    assert "Traceback" not in err
    assert not (tmp_path / "run" / "noise.json").exists()


def test_too_few_documents_are_an_error(ebft, tiny_run, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    (few / "a.py").write_text("abc = abc" * 8)
    (few / "b.py").write_text("abd = abd" * 8)
    arguments = tiny_run(f"data.path={few}", "data.held_out=0.5")[1:]
    status, _, err = ebft("noise", *arguments)
    assert status == 2
    assert "documents to train on, and intervals need 8 or more" in err


def test_more_documents_than_there_are(noise, tmp_path):
    status, _, err = noise("--documents", "1000")
    assert status == 0
    assert "--documents 1000: the data has" in err
    assert 8 <= record(tmp_path)["documents"] < 1000


def test_several_processes_are_refused(noise, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    status, _, err = noise()
    assert status == 2
    assert "runs in one process" in err


def test_the_recommendation_can_be_followed(tiny_run):
    """What tests/benchmarks/noise.py does, on the tiny model: the recommended n has the predicted
    noise on other documents."""
    _, file, *overrides = tiny_run()
    compared = follow(Path(file), overrides, documents=16)
    assert compared[0].what.startswith("noise × FLOPs, n = ")
    assert "signal ÷ noise" in compared[-1].what
    assert all(one.agrees for one in compared), [str(one) for one in compared]
    first = compared[0]
    assert 1 / 1.5 < first.predicted / first.measured.value < 1.5


@pytest.mark.parametrize(
    ("predicted", "at_most", "agrees"),
    [(1.0, False, True), (0.5, False, False), (4.0, False, False), (0.5, True, False),
     (9.0, True, True)],
)  # fmt: skip
def test_what_agrees(predicted, at_most, agrees):
    one = Comparison("x", predicted, Ratio(1.4, 1.0, 2.0), at_most=at_most)
    assert one.agrees == agrees
    assert ("DIFFERS" in str(one)) == (not agrees)


def test_cross_entropy_gradients_are_shared_where_they_are_the_same(noise, tmp_path):
    status, _, err = noise("--vary", "objective.gamma=1", "objective.token_weights=probability")
    assert status == 0, err
    first, gamma, weighted = (it["cross_entropy"] for it in record(tmp_path)["alternatives"])
    assert numbers(first) == pytest.approx(numbers(gamma))
    assert weighted["signal"]["value"] != first["signal"]["value"]
    assert weighted["noise_of_documents"]["value"] < first["noise_of_documents"]["value"]
