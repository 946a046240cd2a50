"""recipes/paper/: values, and runs on small files in the schemas of the hub's data sets."""

import json

import pytest

from ebft.config.load import load_recipe
from tests.conftest import RECIPES

FILES = sorted((RECIPES / "paper").glob("*.yaml"))
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
    assert (options.training.documents_per_step, options.training.clip_grad_norm) == (16, 1.0)
    assert options.output_dir.name == file.stem
    size = options.model.path.split("-")[-1].lower()
    assert file.stem.endswith(f"_{size}")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_data_and_the_cost(file, stubs):
    recipe = load_recipe(file, stubs(file))
    options = recipe.options
    splits = options.data()
    assert len(splits.held_out) == 5
    assert {e.completion for e in splits.held_out}.isdisjoint(e.completion for e in splits.train)
    assert all(bool(e.prompt) != (setting(file) == "unstructured_code") for e in splits.train)
    millions = float(recipe.job.estimate().split(", ")[1].split(" M")[0].replace(",", ""))
    assert millions == pytest.approx(MILLIONS[options.model.path], abs=1)


@pytest.mark.parametrize("name", ["qa_code_qwen2.5_1.5b", "unstructured_code_qwen2.5_3b"])
def test_it_runs_on_a_tiny_model(ebft, stubs, tiny_model, tmp_path, name):
    file = RECIPES / "paper" / f"{name}.yaml"
    status, out, err = ebft(
        "run", str(file), *stubs(file), f"model.path={tiny_model}", "model.device=cpu",
        "model.precision=float32", "documents.length=24", "documents.characters_per_token=1",
        "plan.start=4", "plan.stride=4", "plan.rollout_length=4", "training.steps=2",
        "training.documents_per_step=4", "evaluation.documents=3", "evaluation.every=null",
        f"output_dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert status == 0, err
    assert "before → after" in out
