"""Variants of a study that start from the trained model of another one."""

import json
from pathlib import Path

import pytest
import yaml

from ebft.config.load import load_recipe
from ebft.study.folder import StudyFolder
from ebft.study.plan import plan_arms
from ebft.study.worker import work
from tests.conftest import RECIPES

PLAN = {"_component_": "strided", "start": 8, "stride": 8, "rollout_length": 4}
FEATURES = {"_component_": "hidden_states", "depths": [0.5]}


@pytest.fixture
def study(tiny_model, python_folder, tmp_path, monkeypatch):
    """Writes a study with a warm start in `tmp_path/out`; its runs are in this process."""
    monkeypatch.setattr("ebft.study.job.run_in_process", lambda run, **_: work(run))

    def write(variants, **content):
        whole = {
            "recipe": "study", "output_dir": str(tmp_path / "out"), "seeds": [0, 1],
            "reference": "SFT",
            "overrides": {
                "model.path": str(tiny_model), "data.path": str(python_folder),
                "data.held_out": 0.25, "documents.length": 40, "documents.shortest": 12,
                "plan": PLAN, "training.steps": 2, "training.micro_batch": 2,
                "optimizer.lr": 1.0e-2, "lr_scheduler": None, "checkpoint.every": 1,
            },
            "variants": variants,
            "evaluation": {
                "documents": 3,
                "evaluators": [
                    {"_component_": "cross_entropy"},
                    {"_component_": "feature_matching_loss", "plan": PLAN, "feature_map": FEATURES},
                ],
            },
            **content,
        }  # fmt: skip
        file = tmp_path / "study.yaml"
        file.write_text(yaml.safe_dump(whole, sort_keys=False))
        return str(file)

    return write


SFT = {"base_recipe": str(RECIPES / "sft_full.yaml")}
WARM = {"base_recipe": str(RECIPES / "ebft_full.yaml"), "starts_from": "SFT"}


def measured(folder, step):
    lines = [json.loads(line) for line in folder.evaluations.read_text().splitlines()]
    return {
        line["name"]: sum(line["values"]) / len(line["values"])
        for line in lines
        if line["step"] == step and "values" in line
    }


def test_a_warm_start_begins_where_its_start_ended(ebft, study, tmp_path, tiny_model):
    reported = {"held-out CE": {"base": 3.5, "SFT": 2.5, "RLVR": 9.0}}
    status, _, err = ebft(
        "study", study({"SFT": SFT, "warm": WARM}, reported=reported, note="Only a test.")
    )
    assert status == 0, err
    out = StudyFolder(tmp_path / "out")
    runs = [out.run(name) for name in json.loads((out.path / "plan.json").read_text())["runs"]]
    for sft, warm in (runs[:2], runs[2:]):
        # φ is of the base model in both, so every measurement is that of the same weights.
        assert measured(warm, 0) == measured(sft, 2)
        assert measured(warm, 2) != measured(warm, 0)
        recipe = yaml.safe_load(warm.recipe.read_text())
        assert recipe["model"]["base"] == str(tiny_model)
        assert recipe["model"]["path"].endswith("checkpoints/step-000002")
        assert warm.description().starts_from == sft.path.name
        assert not sft.checkpoints.exists()
        assert not warm.checkpoints.exists()
    page = (out.report / "index.html").read_text()
    tables = (out.report / "tables.md").read_text()
    for text in (page, tables):
        assert "Reported by others" in text
        assert "Only a test." in text
    before = measured(runs[0], 0)["held-out CE"]
    assert "| held-out CE | base | 3.5 |" in tables
    assert abs(float(tables.split("| base | 3.5 | ")[1].split(" ")[0]) - before) < 0.5
    assert "| held-out CE | RLVR | 9 | – | – |" in tables
    status, _, err = ebft("study", study({"SFT": SFT, "warm": WARM}, reported=reported))
    assert status == 0, err
    assert "4 runs, 4 of them already done" in err


def test_without_its_start_a_run_fails_and_says_why(ebft, study, tmp_path):
    broken = {**SFT, "overrides": {"optimizer.lr": 1.0e30}}
    file = study({"SFT": broken, "warm": WARM}, seeds=[0])
    status, _, err = ebft("study", file)
    assert status == 1
    assert "whose trained model it starts from, failed" in err


@pytest.mark.parametrize(
    ("variants", "says"),
    [
        ({"warm": WARM, "SFT": SFT}, "starts_from = SFT: is no arm before it; there are: none"),
        (
            {"SFT": SFT, "warm": WARM | {"starts_from": "SFTT"}},
            "starts_from = SFTT: is no arm before it; there are: SFT",
        ),
        (
            {"SFT": SFT | {"overrides": {"model.lora": {"rank": 2}}}, "warm": WARM},
            "starts_from = SFT: trains an adapter",
        ),
    ],
)
def test_starts_that_are_none(ebft, study, variants, says):
    status, _, err = ebft("study", study(variants), "--dry-run")
    assert status == 2
    assert says in err


def test_another_start_is_another_run(study):
    faster = SFT | {"overrides": {"training.steps": 3}}
    cold = {key: value for key, value in WARM.items() if key != "starts_from"}
    studies = (
        {"SFT": SFT, "warm": WARM},
        {"SFT": faster, "warm": WARM},
        {"SFT": SFT, "warm": cold},
    )
    options = [load_recipe(Path(study(variants))).options for variants in studies]
    assert len({plan_arms(one)[1].fingerprint for one in options}) == 3
