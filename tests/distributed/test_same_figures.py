"""Runs in two processes log and measure what one process does, whatever the recipe sets."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import RECIPES
from tests.resume.common import TIMES

SGD = ["optimizer._component_=torch.optim.SGD", "optimizer.lr=0.01"]
"""Weights move by their gradients as they are; Adam would make rounding as large as they are."""
MEASURED = ["training.measure_gradients_every=1", "training.clip_grad_norm=1000"]
GENERATED = ["sampler=hf_generate", "sampler.batch=3"]
PAIRS = [{"q": f"a b {c}", "a": "d e"} for c in "abcdefghijkl"]
TUNE = [sys.executable, "-m", "ebft.cli.tune", "run", "--nproc_per_node", "2"]


@pytest.fixture
def both(ebft, environment, tmp_path):
    """The folders of a recipe in one process and in two, and what both of them said."""

    def run(file, *overrides, of_one=(), of_two=()):
        one, two = tmp_path / "one", tmp_path / "two"
        status, _, said = ebft("run", file, *overrides, f"output_dir={one}", *of_one)
        assert status == 0, said
        command = [*TUNE, file, *overrides, f"output_dir={two}", *of_two]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return one, two, done.stderr

    return run


def lines(folder, file):
    return [json.loads(line) for line in (folder / file).read_text().splitlines()]


def close(value):
    """Of numbers, to rounding; of lists of them too."""
    of_numbers = isinstance(value, int | float | list)
    return pytest.approx(value, rel=1e-5, abs=1e-6) if of_numbers else value


def assert_same_figures(one, two):
    alone, divided = lines(one, "evaluations.jsonl"), lines(two, "evaluations.jsonl")
    assert len(alone) > 0
    assert [line["name"] for line in alone] == [line["name"] for line in divided]
    for line, other in zip(alone, divided, strict=True):
        for key, value in line.items():
            expected = pytest.approx(value, rel=1e-3) if key == "half_width_95" else close(value)
            assert other[key] == expected, (line["name"], key)


def assert_same_metrics(one, two):
    alone, divided = lines(one, "metrics.jsonl"), lines(two, "metrics.jsonl")
    assert len(alone) == len(divided) > 0
    for line, other in zip(alone, divided, strict=True):
        assert line.keys() == other.keys()
        for key in line.keys() - TIMES:
            expected = close(line[key])
            if key.endswith("noise_scale") and line[key] is not None:
                expected = pytest.approx(line[key], rel=1e-3)  # a difference of close numbers
            assert other[key] == expected, key


@pytest.fixture
def pairs(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    return ["data=files", f"data.path={file}", "data.prompt=q", "data.completion=a",
            "plan.rollout_length=6", "reward.verifier=exact_match"]  # fmt: skip


@pytest.mark.slow
def test_generated_rollouts_gradients_and_evaluations(both, tiny_run, tmp_path):
    """Evaluated before, in and after training; the processes have unequally many contexts."""
    _, file, *overrides = tiny_run(*SGD, *GENERATED, *MEASURED, "lr_scheduler=null")
    remember = [f"evaluation.remember={tmp_path / 'remembered'}"]
    one, two, _ = both(file, *overrides, *remember, of_two=["evaluation.remember=null"])
    assert_same_metrics(one, two)
    assert_same_figures(one, two)
    assert "policy_gradient_noise_scale" in (two / "metrics.jsonl").read_text()
    # What one process measured before the first step, two remember, bit for bit.
    before = lines(one, "evaluations.jsonl")
    _, again, _ = both(file, *overrides, *remember, "overwrite=true", "training.steps=1")
    assert lines(again, "evaluations.jsonl")[:2] == before[:2]


@pytest.mark.slow
def test_reinforcement_learning_with_an_adapter(both, tiny_run, pairs):
    """Rollouts end early, in other steps of each process."""
    recipe = {"recipe": "rlvr_lora", "without": "plan."}
    _, file, *overrides = tiny_run(*pairs, *SGD, *GENERATED, *MEASURED, **recipe)
    assert_same_metrics(*both(file, *overrides, "evaluation.evaluators=[]")[:2])


@pytest.mark.slow
def test_a_base_in_4_bits_and_its_merged_checkpoint(both, tiny_run):
    pytest.importorskip("torchao")
    quantized = ["model.lora.quantize_base=true", "checkpoint.merge_adapter=true"]
    _, file, *overrides = tiny_run(*SGD, *quantized, "lr_scheduler=null", recipe="ebft_lora")
    one, two, _ = both(file, *overrides)
    assert_same_metrics(one, two)
    assert_same_figures(one, two)
    assert_same_weights(one, two, step=3)


@pytest.mark.slow
def test_compiled_layers(both, tiny_run):
    compiled = [*SGD, "training.compile=true", "evaluation.evaluators=[]", "training.steps=1"]
    _, file, *overrides = tiny_run(*compiled, "lr_scheduler=null", recipe="sft_full")
    one, two, _ = both(file, *overrides)
    assert_same_metrics(one, two)
    assert_same_weights(one, two, step=1)


def assert_same_weights(one, two, step):
    alone, divided = (
        load_file(folder / "checkpoints" / f"step-{step:06d}" / "model.safetensors")
        for folder in (one, two)
    )
    assert alone.keys() == divided.keys()
    for name, weight in alone.items():
        torch.testing.assert_close(divided[name], weight, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_an_evaluation(both, tiny_model, python_folder):
    """Five documents over two processes: the last one is measured twice, and counted once."""
    third, fourth = (f"evaluation.evaluators.{i}" for i in (2, 3))
    short = ["documents.length=40", "plan.start=8", "plan.stride=8", "plan.rollout_length=4",
             f"{third}.plan.start=8", f"{third}.plan.rollout_length=16", f"{third}.lengths=[4,16]",
             f"{fourth}.plan.start=8", f"{fourth}.plan.rollout_length=8"]  # fmt: skip
    data = [f"model.path={tiny_model}", f"data.path={python_folder}", "data.held_out=0.5"]
    for layout in ("tree", "rows"):
        more = ["evaluation.documents=5", f"model.attention={layout}", "overwrite=true"]
        one, two, said = both(str(RECIPES / "evaluate.yaml"), *data, *short, *more)
        assert_same_figures(one, two)
        assert said.count("figures: ") == 1
    (two / "report.html").stat()
