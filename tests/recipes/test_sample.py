"""`ebft sample`: both models write after the same contexts, and are scored by the recipe."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ebft.config.about import read_about, write_about
from ebft.sample.two_models import recipe_of


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def texts(line, role):
    return [it["text"] for it in line[role]]


@pytest.fixture
def trained(ebft, tiny_run, tmp_path):
    status, _, err = ebft(*tiny_run("training.steps=2", "optimizer.lr=0.01"))
    assert status == 0, err
    return tmp_path / "run"


def test_both_models_have_the_same_contexts_and_random_numbers(ebft, trained, tiny_model, tmp_path):
    status, out, err = ebft("sample", str(trained), "--contexts", "3", "--n", "2")
    assert status == 0, err
    file = trained / "samples" / "step-000002.jsonl"
    assert f"samples: {file}; page: {file.with_suffix('.html')}" in err
    assert "alignment" in out
    found = lines(file)
    assert len(found) == 3
    assert any(texts(one, "base") != texts(one, "checkpoint") for one in found)
    assert all(len(one["base"]) == len(one["checkpoint"]) == 2 for one in found)
    page = file.with_suffix(".html").read_text()
    assert all(part in page for part in ("Samples of run, step-000002", str(tiny_model)))
    # The checkpoint beside itself is the same twice, and the checkpoint of before.
    checkpoint = str(trained / "checkpoints" / "step-000002")
    again = tmp_path / "same.jsonl"
    status, _, err = ebft("sample", checkpoint, "--base", checkpoint, "--contexts", "3", "--n",
                          "2", "--output", str(again))  # fmt: skip
    assert status == 0, err
    for one, other in zip(lines(again), found, strict=True):
        assert one["base"] == one["checkpoint"]
        assert texts(one, "checkpoint") == texts(other, "checkpoint")
        assert (one["context"], one["reference"]) == (other["context"], other["reference"])


def test_the_alignment_is_the_cosine_of_features_and_the_reward_the_recipes(ebft, trained):
    own = ["transforms=[]", "reward.diversity=0", "reward.alignment_similarity=cosine"]
    assert ebft("sample", str(trained), *own, "--contexts", "4")[0] == 0
    for one in lines(trained / "samples" / "step-000002.jsonl"):
        for it in (*one["base"], *one["checkpoint"]):
            assert it["reward"] == pytest.approx(2 * it["alignment"], rel=1e-5)
            assert -1 <= it["alignment"] <= 1


def test_prompts_are_continued_as_transformers_does(ebft, trained, tiny_model, tmp_path):
    file = tmp_path / "p.txt"
    file.write_text("a b c\nd e f g h\n")
    status, _, err = ebft("sample", str(trained), "sampler.top_k=1", "--prompts", str(file),
                          "--length", "5", "--n", "1")  # fmt: skip
    assert status == 0, err
    checkpoint = trained / "checkpoints" / "step-000002"
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    for one, prompt in zip(
        lines(trained / "samples" / "step-000002.jsonl"), ["a b c", "d e f g h"], strict=True
    ):
        assert one["reference"] is None
        for role, folder in (("base", tiny_model), ("checkpoint", checkpoint)):
            tokens = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
            made = AutoModelForCausalLM.from_pretrained(folder).generate(
                **tokens, do_sample=False, max_new_tokens=5
            )[0, tokens.input_ids.shape[1] :]
            wrote = tokenizer.decode(made, clean_up_tokenization_spaces=False)
            assert [it["text"] for it in one[role]] == [wrote]
            assert {it["alignment"] for it in one[role]} == {None}


def test_a_recipe_without_rollouts_is_scored_by_its_evaluators_feature_map(
    ebft, tiny_run, tmp_path
):
    assert ebft(*tiny_run("training.steps=1", recipe="sft_full"))[0] == 0
    assert ebft("sample", str(tmp_path / "run"), "--contexts", "2")[0] == 0
    for one in lines(tmp_path / "run" / "samples" / "step-000001.jsonl"):
        assert len(one["base"]) == 4
        assert all(it["alignment"] is not None and it["reward"] is None for it in one["base"])


def test_the_base_of_an_adapter_is_the_model_without_it(ebft, tiny_run, tiny_model, tmp_path):
    pytest.importorskip("peft")
    assert ebft(*tiny_run("training.steps=2", "model.lora.rank=2", "optimizer.lr=0.05"))[0] == 0
    run, whole = tmp_path / "run", tmp_path / "whole.jsonl"
    assert ebft("sample", str(run), "--contexts", "2")[0] == 0
    adapted = lines(run / "samples" / "step-000002.jsonl")
    status, _, err = ebft("sample", str(tiny_model), "--recipe", str(run / "recipe.yaml"),
                          "--contexts", "2", "--output", str(whole), "~model.lora")  # fmt: skip
    assert status == 0, err
    for one, other in zip(adapted, lines(whole), strict=True):
        assert texts(one, "base") == texts(other, "base") == texts(other, "checkpoint")
    assert any(texts(one, "base") != texts(one, "checkpoint") for one in adapted)


def test_code_of_a_checkpoints_folder_is_not_allowed_by_its_own_recipe(trained):
    checkpoint = trained / "checkpoints" / "step-000002"
    about = read_about(checkpoint)
    about.recipe["model"]["trust_remote_code"] = True
    write_about(about, checkpoint)
    assert recipe_of(str(checkpoint))["model"]["trust_remote_code"] is False


MISTAKES = [
    (["nowhere"], "nowhere: is no checkpoint of a run, because it has no run/about.json; add"),
    (["RUN", "--n", "1"], "--n 1: the recipe's reward compares the rollouts"),
    (["RUN", "--n", "0"], "--n 0: give 1 or more"),
    (["RUN", "--contexts", "-1"], "--contexts -1: give 1 or more"),
    (["RUN", "--output", "x.txt"], "--output x.txt: give a file that ends in .jsonl"),
    (["RUN", "--prompts", "none.txt"], "--prompts = none.txt: no such file"),
    (["RUN", "--recipe", "none.yaml"], "none.yaml: no such file"),
    (["RUN", "sampler.m=2"], "command line: sampler.m = 2: unknown key"),
    (["RUN", "--length", "99999"], "the plan needs documents of 100007 tokens or more"),
]


def test_a_mistake_is_one_line(ebft, trained):
    for arguments, says in MISTAKES:
        given = [str(trained) if it == "RUN" else it for it in arguments]
        status, _, err = ebft("sample", *given)
        assert status == 2, arguments
        assert says in err.splitlines()[-1], arguments
        assert "Traceback" not in err
    assert not (trained / "samples").exists()


def test_a_base_with_other_tokens_is_refused(ebft, trained, tmp_path):
    from tests.chat import write_chat_model

    other = write_chat_model(tmp_path / "other", "ChatML")
    status, _, err = ebft("sample", str(trained), "--base", str(other))
    assert status == 2
    assert f"--base {other}: its tokens are not those of the checkpoint" in err


def test_a_run_without_a_checkpoint_has_nothing_to_sample(ebft, tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    status, _, err = ebft("sample", str(tmp_path / "run"))
    assert status == 2
    assert err == (
        f"{tmp_path / 'run'}: has no checkpoint yet; wait for the first, or give another run\n"
    )


def test_a_new_model_is_compared_with_itself_before_training(ebft, tiny_run, tmp_path):
    sizes = ("{model_type: llama, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 2, "
             "num_attention_heads: 2, num_key_value_heads: 1}")  # fmt: skip
    new = [f"model.from_config.config={sizes}", "training.steps=1", "~model.path"]
    status, _, err = ebft(*tiny_run(*new, without="model.path"))
    assert status == 0, err
    status, _, err = ebft("sample", str(tmp_path / "run"), "--contexts", "2")
    assert status == 0, err
    page = (tmp_path / "run" / "samples" / "step-000001.html").read_text()
    assert "the new model, before training" in page
    assert torch.get_default_dtype() == torch.float32
