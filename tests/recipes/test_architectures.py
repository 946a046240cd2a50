"""Architectures of today through the command line: plans, checkpoints, resuming, LoRA."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

from ebft.testing.tiny import tiny_tokenizer
from tests.models.sweep import build

pytestmark = pytest.mark.slow

NAMES = [
    "deepseek_v3", "gemma3", "gemma4", "gpt_oss", "lfm2", "llama4", "mamba2", "qwen3_5",
]  # fmt: skip
ROWS = [{"question": f"a b {c} d e f", "answer": f"{c} d = {c} e"} for c in "abcdefghijklmnopqrs"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = {}

    def of(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            build(name, None, torch.float32).save_pretrained(made[name])
            tiny_tokenizer().save_pretrained(made[name])
        return made[name]

    return of


@pytest.fixture
def pairs(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


def weights(folder):
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    return model.state_dict()


def interrupt(run, again):
    """Copies a run as it was after two of its three steps."""
    shutil.copytree(run, again)
    shutil.rmtree(again / "checkpoints/step-000003")


@pytest.mark.parametrize("name", NAMES)
def test_strided(name, ebft, tiny_run, folder, tmp_path):
    model = [f"model.path={folder(name)}", "evaluation.every=null"]
    status, _, err = ebft(*tiny_run(*model))
    assert status == 0, err
    whole = weights(tmp_path / "run/checkpoints/step-000003")
    base = weights(folder(name))
    assert whole.keys() == base.keys()
    changed = {key for key in base if not torch.equal(whole[key], base[key])}
    assert changed
    assert not any("vision" in key or "audio" in key for key in changed), "other towers are kept"
    # To the last bit what it would have been without the interruption.
    interrupt(tmp_path / "run", tmp_path / "again")
    resumed = [f"output_dir={tmp_path / 'again'}", "checkpoint.resume=auto"]
    status, _, err = ebft(*tiny_run(*model, *resumed))
    assert status == 0, err
    resumed = weights(tmp_path / "again/checkpoints/step-000003")
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)


@pytest.mark.parametrize("name", ["deepseek_v3", "gemma3"])
def test_rows_have_the_losses_of_the_tree(name, ebft, tiny_run, folder, tmp_path):
    steps = {}
    for layout in ("tree", "rows"):
        options = [f"model.path={folder(name)}", f"model.attention={layout}"]
        output = f"output_dir={tmp_path / layout}"
        status, _, err = ebft(*tiny_run(*options, output, "evaluation.every=null"))
        assert status == 0, err
        lines = (tmp_path / layout / "metrics.jsonl").read_text().splitlines()
        steps[layout] = [step for step in map(json.loads, lines) if "seconds" in step]
    assert len(steps["tree"]) == 3
    for tree, rows in zip(steps["tree"], steps["rows"], strict=True):
        for key in ("ce", "policy_gradient_loss", "reward"):
            assert tree[key] == pytest.approx(rows[key], abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_completion(name, ebft, tiny_run, folder, pairs, tmp_path):
    columns = ["data=files", f"data.path={pairs}", "data.prompt=question", "data.completion=answer"]
    plan = ["plan=completion", "plan.rollout_length=4", "evaluation.every=null"]
    status, out, err = ebft(
        *tiny_run(*columns, *plan, f"model.path={folder(name)}", without="plan."),
    )
    assert status == 0, err
    assert "held-out CFM" in out


def test_an_adapter_that_peft_refuses(ebft, tiny_run, folder):
    """Mamba's kernels compute with the weight of `out_proj` itself."""
    status, _, err = ebft(*tiny_run(f"model.path={folder('mamba2')}", "model.lora.rank=2"))
    assert status == 2
    assert "model.lora: Mamba2ForCausalLM takes no such adapter" in err
    assert "name the linear layers in model.lora.target_modules" in err


@pytest.mark.parametrize(
    ("name", "targets"),
    [("gemma3", "all-linear"), ("mamba2", "[in_proj]"), ("llama4", "all-linear"),
     ("qwen3_5", "all-linear")],
)  # fmt: skip
def test_lora(name, targets, ebft, tiny_run, folder, tmp_path):
    lora = [
        f"model.path={folder(name)}", "model.lora.rank=2", f"model.lora.target_modules={targets}",
        "evaluation.every=null",
    ]  # fmt: skip
    status, _, err = ebft(*tiny_run(*lora))
    assert status == 0, err
    saved = tmp_path / "run/checkpoints/step-000003"
    config = json.loads((saved / "adapter_config.json").read_text())
    assert not any("vision" in target for target in config["target_modules"])
    interrupt(tmp_path / "run", tmp_path / "again")
    status, _, err = ebft(
        *tiny_run(*lora, f"output_dir={tmp_path / 'again'}", "checkpoint.resume=auto")
    )
    assert status == 0, err
    files = [
        folder / "adapter_model.safetensors"
        for folder in (saved, tmp_path / "again/checkpoints/step-000003")
    ]
    assert files[0].read_bytes() == files[1].read_bytes()
