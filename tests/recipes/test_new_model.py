"""A model made from its configuration, through the command line: trained, resumed, continued."""

import json

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.conftest import RECIPES
from tests.resume.common import assert_same_checkpoints, checkpoint

SIZES = "{model_type: llama, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 4, "
SIZES += "num_attention_heads: 4, num_key_value_heads: 2, tie_word_embeddings: true}"
SMALL = [
    "data.train=40", "data.held_out=8", "data.out_of_distribution=8",
    "training.documents_per_step=4", "training.micro_batch=4", "evaluation.documents=4",
    "evaluation.every=null",
]  # fmt: skip


@pytest.fixture
def lab(ebft, tmp_path):
    """Runs a recipe of the laboratory for a few steps on a tiny model."""

    def run(name, folder, *more):
        file, output = RECIPES / "lab" / f"{name}.yaml", f"output_dir={tmp_path / folder}"
        return ebft("run", str(file), output, *SMALL, *more)

    return run


def figures(folder):
    """The names of what a run has measured."""
    lines = (folder / "evaluations.jsonl").read_text().splitlines()
    return {json.loads(line)["name"] for line in lines}


def test_it_is_trained_resumed_and_continued_by_every_method(lab, tmp_path):
    new = ["checkpoint.every=2", f"model.from_config.config={SIZES}"]
    # Else a run of two steps would have another schedule, and figures that the whole has not.
    new += ["lr_scheduler=null", "evaluation.every=2"]
    status, _, err = lab("base", "whole", *new, "training.steps=4")
    assert status == 0, err
    assert "SFT of a new llama: 0.0 M parameters" in err
    assert "held-out accuracy (greedy)" in figures(tmp_path / "whole")
    assert lab("base", "parts", *new, "training.steps=2")[0] == 0
    status, _, err = lab("base", "parts", *new, "training.steps=4", "checkpoint.resume=auto")
    assert status == 0, err
    assert "resuming after step 2" in err
    last = checkpoint(tmp_path / "whole", 4)
    assert_same_checkpoints(last, checkpoint(tmp_path / "parts", 4))

    model, tokenizer = (it.from_pretrained(last) for it in (AutoModelForCausalLM, AutoTokenizer))
    assert model.config.vocab_size == len(tokenizer) == 258
    for name in ("sft", "rlvr", "ebft"):
        status, _, err = lab(name, name, f"model.path={last}", "training.steps=1")
        assert status == 0, err
        assert {"held-out CE", "held-out CFM", "held-out pass@4"} <= figures(tmp_path / name)
        trained = AutoModelForCausalLM.from_pretrained(checkpoint(tmp_path / name, 1))
        assert len(trained.state_dict()) == len(model.state_dict())


def test_another_seed_is_another_run(lab):
    new = [f"model.from_config.config={SIZES}", "training.steps=1"]
    assert lab("base", "run", *new)[0] == 0
    again = [*new, "checkpoint.resume=auto", "model.from_config.seed=1"]
    status, _, err = lab("base", "run", *again)
    assert status == 2
    assert "model.from_config.seed: 0 in the checkpoint, 1 now" in err


def test_features_of_a_new_model_are_those_of_its_random_weights(lab, tmp_path):
    status, _, err = lab(
        "ebft", "run", "model.path=null", f"model.from_config.config={SIZES}", "training.steps=1",
        "sampler.n=2",
    )  # fmt: skip
    assert status == 0, err
    lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    (step,) = (line for line in lines if "alignment" in line)
    assert step["alignment"] > 0


def test_what_it_costs_is_told_without_making_it(ebft):
    status, out, err = ebft("run", str(RECIPES / "lab" / "base.yaml"), "--dry-run")
    assert status == 0, err
    assert "SFT of a new llama, 0.5 M parameters" in out
