"""Recipe `evaluate`: figures of a model or a checkpoint, without training."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Lfm2Config

from ebft.testing import write_tiny_model
from tests.conftest import RECIPES
from tests.tiny import VOCAB, tiny_tokenizer

FILE = str(RECIPES / "evaluate.yaml")


@pytest.fixture
def tiny(tiny_model, python_folder, tmp_path):
    """Arguments that make recipes/evaluate.yaml a matter of seconds, in `tmp_path/eval`."""
    return [
        FILE,
        f"model.path={tiny_model}",
        f"data.path={python_folder}",
        "data.held_out=0.25",
        "documents.length=40",
        "plan.start=8",
        "plan.stride=8",
        "plan.rollout_length=4",
        "evaluation.documents=3",
        "evaluation.evaluators.2.plan.start=8",
        "evaluation.evaluators.2.plan.rollout_length=16",
        "evaluation.evaluators.2.lengths=[4,16]",
        "evaluation.evaluators.3.plan.start=8",
        "evaluation.evaluators.3.plan.rollout_length=8",
        f"output_dir={tmp_path / 'eval'}",
    ]


def figures(folder):
    lines = (folder / "evaluations.jsonl").read_text().splitlines()
    return {line["name"]: line for line in map(json.loads, lines)}


def assert_figures_of_the_run(tmp_path):
    """What `eval` found is what `run` said after its last step, 3."""
    last, found = figures(tmp_path / "run"), figures(tmp_path / "eval")
    for name in ("held-out CE", "held-out CFM"):
        assert last[name]["step"] == 3
        assert found[name]["mean"] == pytest.approx(last[name]["mean"], rel=1e-5)


@pytest.mark.parametrize("command", ["eval", "run"])
def test_figures_and_a_table(ebft, tiny, tmp_path, command):
    status, out, err = ebft(command, *tiny)
    assert status == 0, err
    found = figures(tmp_path / "eval")
    assert list(found) == [
        "held-out CE",
        "held-out CFM",
        "held-out CFM of 4 tokens",
        "held-out CFM of 16 tokens",
        "held-out entropy",
        "held-out entropy slope",
        "held-out reference CE",
        "held-out reference CE slope",
    ]
    for name, line in found.items():
        assert name in out
        assert line["set"] == "held-out"
        assert line["documents"] == 3
        assert line["half_width_95"] > 0
    assert found["held-out CFM of 16 tokens"]["at"] == 16
    assert (tmp_path / "eval" / "recipe.yaml").is_file()
    assert (tmp_path / "eval" / "by_length.png").read_bytes().startswith(b"\x89PNG")


def test_the_figures_are_those_of_a_run(ebft, tiny, tiny_run, tmp_path):
    """What a run says of its last step is what its last checkpoint is found to be."""
    assert ebft(*tiny_run("evaluation.evaluators.1.n=16"))[0] == 0
    checkpoint = tmp_path / "run" / "checkpoints" / "step-000003"
    base = next(a for a in tiny if a.startswith("model.path="))
    status, _, err = ebft(
        "eval", *tiny, f"model.path={checkpoint}", base.replace("path", "base"), "micro_batch=2"
    )
    assert status == 0, err
    assert_figures_of_the_run(tmp_path)


def test_a_run_that_trained_is_not_overwritten(ebft, tiny, tiny_run, tmp_path):
    """Its checkpoint is measured in the folder where its own figures are."""
    run = tmp_path / "run"
    assert ebft(*tiny_run("training.steps=1"))[0] == 0

    def times():
        """Of all files but the lock, which some versions of filelock write when they take it."""
        files = (path for path in run.rglob("*") if path.is_file() and path.name != ".lock")
        return {path: path.stat().st_mtime_ns for path in files}

    before = times()
    own = [f"model.path={run / 'checkpoints' / 'step-000001'}", f"output_dir={run}"]
    status, _, err = ebft("eval", *tiny, *own, "overwrite=true")
    assert status == 2
    assert f"output_dir = {run}: there is a run of another kind in that folder" in err
    assert "(recipe = finetune)" in err
    (run / "recipe.yaml").rename(tmp_path / "recipe.yaml")
    assert ebft("eval", *tiny, *own, "overwrite=true")[0] == 2
    (tmp_path / "recipe.yaml").rename(run / "recipe.yaml")
    assert times() == before


def test_a_merged_checkpoint_of_qlora_is_measured_with_its_run_s_features(
    ebft, tiny, tiny_run, tiny_model, tmp_path
):
    merged = ["model.lora.quantize_base=true", "checkpoint.merge_adapter=true"]
    run = tiny_run("optimizer.lr=0.05", "evaluation.evaluators.1.n=16", *merged, recipe="ebft_lora")
    assert ebft(*run)[0] == 0
    checkpoint = tmp_path / "run" / "checkpoints" / "step-000003"
    status, _, err = ebft("eval", *tiny, f"model.path={checkpoint}", f"model.base={tiny_model}")
    assert status == 0, err
    assert_figures_of_the_run(tmp_path)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("more", [[], ["model.lora.quantize_base=true"]])
def test_an_adapter_is_measured_on_its_base(
    ebft, tiny, tiny_run, tiny_model, tmp_path, precision, more
):
    """As the run had it: in bfloat16, W + ΔW rounded as one is another model than W and ΔW."""
    tiny.append(f"model.precision={precision}")
    fast = ["optimizer.lr=0.05", "evaluation.evaluators.1.n=16", *more, tiny[-1]]
    assert ebft(*tiny_run(*fast, recipe="ebft_lora"))[0] == 0
    checkpoint = tmp_path / "run" / "checkpoints" / "step-000003"
    adapter = [f"model.path={checkpoint}"]
    status, _, err = ebft("eval", *tiny, *adapter)
    assert status == 2
    assert "holds an adapter without its model; set model.base to the model that" in err
    status, _, err = ebft("eval", *tiny, *adapter, f"model.base={tiny_model}")
    assert status == 0, err
    assert_figures_of_the_run(tmp_path)


def test_the_same_folder_again_says_what_to_do(ebft, tiny):
    assert ebft("eval", *tiny)[0] == 0
    status, _, err = ebft("eval", *tiny)
    assert status == 2
    assert "choose another with output_dir=…, or overwrite=true" in err


def test_documents_that_the_model_cannot_read_are_refused(ebft, tiny):
    status, _, err = ebft("eval", *tiny, "documents.length=100000")
    assert status == 2
    assert "documents.length = 100000: the model reads 2048 tokens at most" in err


def test_a_model_that_trees_get_wrong_is_not_measured(ebft, tiny, tmp_path):
    """Its convolutions run on from one document into the next."""
    config = Lfm2Config(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3,
        layer_types=["conv", "full_attention"], eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    folder = tmp_path / "lfm2"
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    status, _, err = ebft("eval", *tiny, f"model.path={folder}", "model.attention=tree")
    assert status == 1
    assert "Lfm2ForCausalLM does not compute over a tree what it computes over" in err
    assert not (tmp_path / "eval" / "evaluations.jsonl").exists()


def test_features_are_those_of_the_base(ebft, tiny, tiny_model, tmp_path):
    other = write_tiny_model(tmp_path / "other", seed=1)
    assert ebft("eval", *tiny)[0] == 0
    own = figures(tmp_path / "eval")
    assert ebft("eval", *tiny, f"model.base={other}", "overwrite=true")[0] == 0
    changed = figures(tmp_path / "eval")
    assert changed["held-out CE"] == own["held-out CE"]
    assert changed["held-out CFM"]["mean"] != pytest.approx(own["held-out CFM"]["mean"])


def test_an_adapter_of_another_program_is_merged(ebft, tiny, tiny_model, tmp_path):
    """It may have adapted what ebft computes with itself, here the LM head."""
    from peft import LoraConfig, get_peft_model

    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    # The head is tied, and the adapter is none of the embedding.
    base.lm_head.weight = torch.nn.Parameter(base.lm_head.weight.clone())
    base.config.tie_word_embeddings = False
    targets = ["q_proj", "lm_head"]
    adapted = get_peft_model(base, LoraConfig(target_modules=targets, init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.save_pretrained(tmp_path / "adapter")
    paths = [f"model.path={tmp_path / 'adapter'}", f"model.base={tiny_model}"]
    status, _, err = ebft("eval", *tiny, *paths)
    assert status == 0, err
    whole = tmp_path / "whole"
    adapted.merge_and_unload().save_pretrained(whole)
    tokenizer.save_pretrained(whole)
    found = figures(tmp_path / "eval")
    status, _, err = ebft(
        "eval", *tiny, f"model.path={whole}", f"model.base={tiny_model}", "overwrite=true"
    )
    assert status == 0, err
    for name, line in figures(tmp_path / "eval").items():
        assert line["mean"] == pytest.approx(found[name]["mean"], rel=1e-4)


def test_an_evaluation_adds_no_adapter(ebft, tiny):
    status, _, err = ebft("eval", *tiny, "model.lora.rank=4")
    assert status == 2
    assert "model.lora: an evaluation does not add an adapter; leave it out" in err


def test_a_base_with_other_tokens_is_refused(ebft, tiny, tiny_model, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    file = other / "tokenizer.json"
    file.write_text(file.read_text().replace('"q"', '"Q"'))
    status, _, err = ebft("eval", *tiny, f"model.base={other}")
    assert status == 2
    assert "its tokens are not those of model.path" in err


@pytest.mark.parametrize(
    ("fails", "size", "says"),
    [
        ("ebft.models.load._load", 64, "set micro_batch=32, or a smaller documents.length"),
        ("ebft.runs.evaluate.measure", 64, "set micro_batch=32, or a smaller doc"),
        ("ebft.runs.evaluate.measure", 1, "set a smaller documents.length or ano"),
    ],
)
def test_out_of_memory(ebft, tiny, monkeypatch, fails, size, says):
    monkeypatch.setattr(fails, lambda *_, **__: torch.empty(1 << 60))
    status, _, err = ebft("eval", *tiny, f"micro_batch={size}")
    assert status == 1
    assert err.rstrip().splitlines()[-1].startswith(f"error: out of memory: {says}")


def test_a_recipe_that_trains_is_refused(ebft, tiny_run):
    status, _, err = ebft("eval", *tiny_run()[1:])
    assert status == 2
    assert "recipe = finetune: is not an evaluation; run it with `ebft run`" in err


def test_nothing_to_measure(ebft, tiny):
    status, _, err = ebft("eval", *tiny, "evaluation.evaluators=[]")
    assert status == 2
    assert "evaluation.evaluators: is empty" in err


def test_a_plan_that_fits_no_document(ebft, tiny):
    long = [
        "evaluation.evaluators.2.plan.rollout_length=64",
        "evaluation.evaluators.2.lengths=[64]",
    ]
    status, _, err = ebft("eval", *tiny, *long)
    assert status == 2
    assert "evaluation.evaluators.2: its plan accepts none of the 3 documents; it needs 72" in err


PLUGIN = '''
import ebft
from ebft.parts.splits import Example, Splits


class Three(ebft.Part):
    """Texts of two kinds, and programs to check."""

    def __call__(self):
        def texts(letters):
            return [Example(x, f"{x}b = {x}" * 6, f"{x} =", check="x = 1") for x in letters]

        return Splits(texts("abcdef"), texts("gh"), texts("ijk"))


@ebft.hookimpl
def register_data():
    return {"three": Three}
'''


def test_a_set_out_of_distribution(ebft, tiny, tiny_run, tmp_path):
    file = tmp_path / "three.py"
    file.write_text(PLUGIN)
    ours = [f"plugins=[{file}]", "data=three", "plan=completion", "plan.rollout_length=4"]
    accuracy = "evaluation.evaluators=[{_component_: cross_entropy}, {_component_: accuracy, n: 4, k: [1, 4], rollout_length: 4}]"  # noqa: E501
    run = tiny_run(*ours, accuracy, without="plan.")
    status, out, err = ebft(*[word for word in run if not word.startswith("data.")])
    assert status == 0, err
    assert "evaluated on 3 out-of-distribution documents" in err
    assert "out-of-distribution" in out
    found = figures(tmp_path / "run")
    assert found["held-out CE"]["documents"] == 2
    assert found["out-of-distribution CE"]["documents"] == 3
    assert found["out-of-distribution pass@4"]["set"] == "out-of-distribution"
    assert 0 <= found["held-out accuracy (greedy)"]["mean"] <= 1
    trained = AutoModelForCausalLM.from_pretrained(tmp_path / "run/checkpoints/step-000003")
    assert torch.isfinite(trained.lm_head.weight).all()
