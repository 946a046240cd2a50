"""recipes/paper/: values, and runs on small files in the schemas of the hub's data sets."""

import json

import pytest

from ebft.config.load import load_recipe
from ebft.plans.strided import Strided
from ebft.runs.estimate import StepEstimate, document_tree
from ebft.samplers.hf_tree import HfTree
from tests.conftest import RECIPES

FILES = sorted((RECIPES / "paper").glob("*.yaml"))
EBFT = [file for file in FILES if file.stem.startswith(("qa", "unstructured", "translation"))]
OTHERS = [file for file in FILES if file not in EBFT]
ROW, ROWS = 1024, 16
"""Tokens of a row and rows of a step in the public configurations, which pack documents into rows:
`prompt_max_len`, and `rollout_batch_size` as it is at commit 4064b49 (it was 8 before)."""
EPOCHS = 2
"""`num_episodes` of their first set; their second, from a warm start, has 1."""
TOKENS = {
    "qa_code": 100_000 * 318,  # pairs of OpenCodeInstruct by tokens of one, by a public replication
    "unstructured_code": 20_000_000,  # the data set's own name
    "translation": 2 * 58_702 * 81,  # ALMA's pairs in both directions by tokens of one, measured
}
STEPS = {"qa_code": 3884, "unstructured_code": 2440, "translation": 1162}
CONTEXTS = {"qa_code": 2032, "unstructured_code": 2032, "translation": 8144}
"""Contexts of a step: ROWS rows, each with (ROW − G − start)/stride + 1."""
MILLIONS = {  # as the models' cards have them, without norms and biases
    "Qwen/Qwen2.5-1.5B": 1544,
    "Qwen/Qwen2.5-3B": 3086,
    "Qwen/Qwen2.5-7B": 7615,
    "meta-llama/Llama-3.2-1B": 1236,
}
SETTINGS = ("qa_code", "unstructured_code", "translation")
LETTERS = "abcdefghijklmnopqrs"


def setting(file):
    return next(
        name for name in ("qa_code", "unstructured_code", "translation") if name in file.stem
    )


@pytest.fixture
def stubs(tmp_path):
    """Folders that stand for the hub's data sets: the same columns and splits."""

    def write(folder, files):
        (tmp_path / folder).mkdir()
        for name, rows in files.items():
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (tmp_path / folder / f"{name}.jsonl").write_text(lines)
        return str(tmp_path / folder)

    def overrides(file):
        pairs = [{"question": f"{a} {b}", "answer": f"{b} {a} {b} = {a} {a}"}
                 for a in LETTERS for b in LETTERS[:4]]  # fmt: skip
        texts = [{"question": "\n".join(row["answer"] for row in pairs[i : i + 9]), "answer": ""}
                 for i in range(0, 60, 2)]  # fmt: skip
        rows = texts if setting(file) == "unstructured_code" else pairs
        if setting(file) == "translation":
            test = write("test", {"test": rows[:5]})
            return [
                f"data.dataset={write('all', {'train': rows})}",
                f"data.held_out_dataset={test}",
            ]
        return [f"data.dataset={write('all', {'train': rows, 'test': rows[:5]})}"]

    return overrides


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_step_and_a_run_are_as_much_work_as_theirs(file):
    options = load_recipe(file).options
    name, documents, training = setting(file), options.documents, options.training
    one_epoch = file.stem.startswith(("sft", "warm"))
    epochs = 1 if one_epoch else EPOCHS
    assert training.steps == pytest.approx(epochs * TOKENS[name] / (ROW * ROWS), rel=0.005)
    assert training.steps == STEPS[name] // (2 if one_epoch else 1)
    length = documents.mean_length or documents.length
    assert training.documents_per_step * length == pytest.approx(ROW * ROWS, rel=0.01)
    if isinstance(options.plan, Strided):
        plan = options.plan
        of_a_row = (ROW - plan.rollout_length - plan.start) // plan.stride + 1
        assert of_a_row * ROWS == CONTEXTS[name]
        contexts = document_tree(plan, HfTree(), length).anchors
        # Fewer, because each document by itself has no anchor within its first `start` tokens.
        assert 0.91 * CONTEXTS[name] < len(contexts) * training.documents_per_step <= CONTEXTS[name]
    assert options.evaluation.documents * length == pytest.approx(128 * ROW, rel=0.01)
    assert options.evaluation.every == 100


def test_the_costs_are_of_documents_of_the_mean_length(tmp_path):
    recipe = load_recipe(
        RECIPES / "paper" / "qa_code_qwen2.5_1.5b.yaml", [f"output_dir={tmp_path}"]
    )
    mean, longest = (
        StepEstimate.of(load_recipe(recipe.job.source, [f"documents.mean_length={it}"]).options)
        for it in ("318", "null")
    )
    assert (mean.typical.length, mean.tree.length, longest.typical.length) == (318, 1024, 1024)
    assert mean.flops() < 0.32 * longest.flops()
    assert mean.memory(4) == longest.memory(4)
    assert "A document of 318 tokens has 38 anchors" in recipe.job.estimate()
    assert "4 documents of 1,024 tokens at a time" in recipe.job.estimate()


@pytest.mark.parametrize("file", OTHERS, ids=lambda file: file.stem)
def test_the_other_methods(file):
    kind, _, rest = file.stem.partition("_")
    options, ebft = (load_recipe(it).options for it in (file, file.with_name(f"{rest}.yaml")))
    steps = options.training.steps
    maps = [it.evaluation.feature_maps() for it in (options, ebft)]
    assert maps[0] == maps[1]
    assert options.training.documents_per_step == ebft.training.documents_per_step
    schedule = options.lr_scheduler.arguments
    assert schedule.get("total_iters", schedule.get("num_warmup_steps")) == round(0.03 * steps)
    if kind == "sft":
        assert options.method == "SFT"
        rate = 3e-6 if setting(file) == "translation" else 1e-5
        assert (options.optimizer.arguments["lr"], schedule["num_training_steps"]) == (rate, steps)
        assert options.data == ebft.data
    elif kind == "warm":
        sft = load_recipe(file.with_name(f"sft_{rest}.yaml")).options
        assert options.model.path == f"{sft.output_dir}/checkpoints/step-{sft.training.steps:06}"
        assert options.model.base == ebft.model.path
        assert options.training.steps == ebft.training.steps // 2
        assert (options.objective, options.reward, options.optimizer) == (
            ebft.objective, ebft.reward, ebft.optimizer
        )  # fmt: skip
    else:
        assert options.method == "RLVR"
        verifier = "sentence_bleu" if setting(file) == "translation" else "program_tests"
        assert (options.reward.verifier, options.objective.gamma) == (verifier, 0)
    assert f"Estimate for {options.method} of " in load_recipe(file).job.estimate()


@pytest.mark.parametrize("file", EBFT, ids=lambda file: file.stem)
def test_values(file):
    options = load_recipe(file).options
    steps, translation = options.training.steps, setting(file) == "translation"
    assert (options.plan.start, options.plan.stride, options.plan.rollout_length) == (
        (4, 2, 4) if translation else (8, 8, 8)
    )
    assert options.feature_map.pooling == ("mean" if translation else "last")
    assert (options.sampler.n, options.sampler.temperature) == (4, 0.6)
    assert (options.objective.gamma, options.objective.reduction) == (0.03, "token_mean")
    assert options.optimizer.arguments == {"lr": 1e-6, "betas": [0.9, 0.95]}
    assert options.lr_scheduler.arguments["total_iters"] == round(0.03 * steps)
    assert options.training.clip_grad_norm == 1.0
    assert options.output_dir.name == file.stem
    size = options.model.path.split("-")[-1].lower()
    assert file.stem.endswith(f"_{size}")


@pytest.mark.parametrize("file", EBFT, ids=lambda file: file.stem)
def test_the_data_and_the_cost(file, stubs):
    recipe = load_recipe(file, stubs(file))
    options = recipe.options
    splits = options.data()
    assert len(splits.held_out) == 5
    assert {e.completion for e in splits.held_out}.isdisjoint(e.completion for e in splits.train)
    assert all(bool(e.prompt) != (setting(file) == "unstructured_code") for e in splits.train)
    millions = float(recipe.job.estimate().split(", ")[1].split(" M")[0].replace(",", ""))
    assert millions == pytest.approx(MILLIONS[options.model.path], abs=1)


def test_rlvr_on_opencode_instruct_runs_on_a_tiny_model(ebft, tiny_model, tmp_path):
    """Rows in the schema of nvidia/OpenCodeInstruct, whose tests are a list in JSON."""
    rows = [
        {
            "id": str(number), "domain": "generic", "average_test_score": "1",
            "input": f"Write f{number}.", "output": f"```python\ndef f{number}(): return 1\n```",
            "unit_tests": json.dumps([f"\nassert f{number}() == 1"]),
        }
        for number in range(12)
    ]  # fmt: skip
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, out, err = ebft(
        "run", str(RECIPES / "paper" / "rlvr_qa_code_qwen2.5_1.5b.yaml"), f"data.path={data}",
        "data.held_out=0.3", f"model.path={tiny_model}", "model.device=cpu",
        "model.precision=float32", "plan.rollout_length=4", "training.steps=2",
        "documents.mean_length=null", "documents.length=128", "reward.workers=2",
        "training.documents_per_step=2", "training.micro_batch=2",
        "evaluation.documents=3", "evaluation.every=null",
        f"output_dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert status == 0, err
    assert "before → after" in out


@pytest.mark.parametrize("name", [
    "qa_code_qwen2.5_1.5b", "unstructured_code_qwen2.5_3b", "sft_qa_code_qwen2.5_1.5b",
])  # fmt: skip
def test_it_runs_on_a_tiny_model(ebft, stubs, tiny_model, tmp_path, name):
    file = RECIPES / "paper" / f"{name}.yaml"
    status, out, err = ebft(
        "run", str(file), *stubs(file), f"model.path={tiny_model}", "model.device=cpu",
        "model.precision=float32", "documents.length=24", "documents.mean_length=null",
        "documents.characters_per_token=1",
        "plan.start=4", "plan.stride=4", "plan.rollout_length=4", "training.steps=2",
        "training.documents_per_step=4", "evaluation.documents=3", "evaluation.every=null",
        f"output_dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert status == 0, err
    assert "before → after" in out
