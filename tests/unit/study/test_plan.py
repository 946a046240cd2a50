"""A study file as a whole: its runs, their fingerprints, and every mistake before anything runs."""

import errno
import os
from pathlib import Path

import pytest
import yaml

from ebft.config.component import Component
from ebft.config.dump import fingerprint
from ebft.config.kinds import ScheduleComponent
from ebft.config.load import load_recipe
from ebft.study.plan import plan_arms, plan_runs
from tests.conftest import RECIPES

BASE = RECIPES / "ebft_full.yaml"
EXAMPLE = str(RECIPES.parent / "plugins" / "ebft-example" / "ebft_example.py")


@pytest.fixture
def file(tmp_path):
    """Writes a study file; its base is recipes/ebft_full.yaml unless said."""

    def write(**content):
        path = tmp_path / "study.yaml"
        whole = {
            "recipe": "study",
            "output_dir": str(tmp_path / "out"),
            "base_recipe": str(BASE),
            **content,
        }
        path.write_text(yaml.safe_dump(whole, sort_keys=False, allow_unicode=True))
        return path

    return write


def planned(path, *overrides):
    return plan_arms(load_recipe(path, overrides).options)


def fingerprints(path):
    return {arm.label: arm.fingerprint for found in planned(path) for arm in [found]}


def test_arms_with_the_same_recipe_are_one_run(file):
    path = file(
        one_at_a_time={"reward.diversity": [0, 1.0], "objective.gamma": [4]},
        grid={"reward.diversity": [0, 1], "objective.gamma": [4]},
        seeds=[3, 5],
    )
    found = planned(path)
    # 1 is the base's 1.0, γ = 4 is the base's, so only diversity 0 differs.
    assert [[arm.label for arm in one.arms] for one in found] == [
        ["reference", "diversity=1.0", "gamma=4", "diversity=1, gamma=4"],
        ["diversity=0", "diversity=0, gamma=4"],
    ]
    runs = plan_runs(load_recipe(path).options)
    assert [(run.arm.label, run.seed) for run in runs] == [
        ("reference", 3), ("diversity=0", 3), ("reference", 5), ("diversity=0", 5),
    ]  # fmt: skip
    assert len({run.name for run in runs}) == 4


def test_a_changed_recipe_has_another_name(file):
    before = planned(file(overrides={"objective.gamma": 1}))[0]
    after = planned(file(overrides={"objective.gamma": 2}))[0]
    assert before.label == after.label
    assert before.fingerprint != after.fingerprint


def test_overrides_of_the_command_line_change_only_what_they_name(file):
    path = file(
        overrides={"training.steps": 60, "training.documents_per_step": 8},
        variants={"v": {"overrides": {"model.lora": {"rank": 4}, "~objective.gamma": None}}},
    )
    (arm,) = planned(
        path,
        "overrides.training.steps=5",
        "overrides.model.precision=bfloat16",
        "overrides.sampler={_component_: hf_tree, n: 2}",
        "variants.v.overrides.objective.gamma=3",
    )
    training, model = arm.options.training, arm.options.model
    assert (training.steps, training.documents_per_step, training.micro_batch) == (5, 8, 4)
    assert (model.path, model.precision) == ("smollm2-135m-instruct", "bfloat16")
    assert (model.lora.rank, arm.options.objective.gamma) == (4, 3)
    assert arm.options.sampler.n == 2


def test_where_it_writes_and_defaults_said_aloud_change_no_fingerprint(file):
    plain = planned(file())[0].fingerprint
    assert planned(file(), "output_dir=elsewhere")[0].fingerprint == plain
    said = file(overrides={"training.clip_grad_norm": 1.0, "reward.alignment_similarity": "dot"})
    assert planned(said)[0].fingerprint == plain


def test_a_study_finds_the_runs_of_earlier_versions(file):
    """By their folders' names: with another fingerprint it would run them again."""
    (arm,) = planned(file())
    logger = Component("ebft.study.step_log.StepLog", {"file": "run/logs/steps.jsonl"})
    assert arm.options.lr_scheduler.path == "transformers.get_cosine_schedule_with_warmup"
    schedule = ScheduleComponent(
        "torchtune.training.get_cosine_schedule_with_warmup", arm.options.lr_scheduler.arguments
    )
    then = {"metric_loggers": (logger,), "lr_scheduler": schedule}
    before = arm.options.model_copy(update=then)
    registry = load_recipe(BASE).registry
    without = ("output_dir", "overwrite", "seed")
    assert arm.fingerprint == fingerprint(before, registry, without=without)


def test_a_plugin_file_is_what_is_in_it_wherever_it_lies(file, tmp_path, monkeypatch):
    plugin, base = tmp_path / "my.py", tmp_path / "base.yaml"
    plugin.write_text(Path(EXAMPLE).read_text())
    base.write_text(BASE.read_text().replace("plugins: []", "plugins: [my.py]"))
    path = file(base_recipe="base.yaml")
    (whole,) = planned(path)
    monkeypatch.chdir(tmp_path.parent)
    relative = path.relative_to(tmp_path.parent)
    (spelt,) = planned(relative)
    assert (spelt.options.plugins, whole.options.plugins) == (
        (str(plugin.relative_to(tmp_path.parent)),), (str(plugin),),
    )  # fmt: skip
    assert spelt.fingerprint == whole.fingerprint
    recipe = spelt.recipe(seed=0, output_dir=Path("there"), remember=Path("kept"))
    assert recipe.options.plugins == (str(plugin),)
    plugin.write_text(plugin.read_text() + "# changed\n")
    assert planned(path)[0].fingerprint != whole.fingerprint


def test_the_evaluation_is_everyones(file):
    path = file(
        variants={
            "EBFT": {"overrides": {"evaluation.documents": 7}},
            "SFT": {"base_recipe": str(RECIPES / "sft_full.yaml")},
        },
        evaluation={"documents": 5, "evaluators": [{"_component_": "cross_entropy"}]},
    )
    ebft, sft = (found.options for found in planned(path))
    assert ebft.evaluation == sft.evaluation
    assert ebft.evaluation.documents == 5


def test_bases_are_relative_to_the_file(file, tmp_path):
    (tmp_path / "mine.yaml").write_text(BASE.read_text())
    assert planned(file(base_recipe="mine.yaml"))[0].arms[0].base == tmp_path / "mine.yaml"


def test_every_run_has_as_many_steps_as_its_budget_holds(file):
    path = file(grid={"sampler.n": [2, 4]}, budget={"tflop_per_run": 100})
    few, many = planned(path)
    assert few.steps > many.steps
    for arm in (few, many):
        assert arm.tflop() <= 100 < arm.tflop() * (arm.steps + 1) / arm.steps
        # The schedule of the base follows.
        assert arm.options.lr_scheduler.arguments["num_training_steps"] == arm.steps
    assert planned(file(budget={"tflop_per_run": 100, "steps": 3}))[0].steps == 3


def test_a_runs_recipe_is_whole(file, tmp_path):
    run = plan_runs(load_recipe(file(seeds=[7], overrides={"sampler.n": 2})).options)[0]
    recipe = run.arm.recipe(seed=run.seed, output_dir=Path("there"), remember=Path("kept"))
    assert recipe.options.seed == 7
    assert recipe.options.sampler.n == 2
    assert recipe.options.evaluation.remember == Path("kept")
    assert recipe.options.metric_loggers == ()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"grid": {"sampler.n": [4, 0]}}, "arm 'n=0': its overrides: sampler.n = 0: must be"),
        ({"overrides": {"sampler.q": 1}}, "arm 'base': its overrides: sampler.q = 1: unknown key"),
        ({"grid": {"sampler.n": [1]}}, "arm 'n=1': "),
        ({"grid": {"sampler..n": [1]}}, "'sampler..n': a key is dotted"),
        ({"overrides": {"~sampler.q": None}}, "there is no 'q'"),
        ({"base_recipe": "nowhere.yaml"}, "base_recipe = "),
        ({"base_recipe": None}, "base_recipe: missing"),
        (
            {"variants": {"a": {"base_recipe": str(BASE)}, "b": {}}, "base_recipe": None},
            "base_recipe: missing",
        ),
        ({"seeds": [1, 1]}, "seeds = [1, 1]: one comes twice"),
        ({"seeds": []}, "seeds = []"),
        (
            {"training": {"steps": 3}},
            "training = {'steps': 3}: a section of the runs; set overrides.",
        ),
        ({"seed": 1}, "seed = 1: unknown key; did you mean 'seeds'?"),
        ({"reference": "n=3", "grid": {"sampler.n": [2, 4]}}, "no such arm; there are: n=2, n=4"),
        ({"budget": {"tflop": 1}}, "budget.tflop = 1: the 1 arms with 1 seeds take"),
        ({"budget": {"tflop_per_run": 0.001}}, "one step takes"),
        ({"overwrite": True}, "overwrite = true: a study goes on where it was"),
        ({"plugins": [EXAMPLE]}, "plugins: a study loads none itself; write `overrides:"),
        ({"grid": {"sampler.n": []}}, "sampler.n = []: has no values to compare"),
        ({"grids": {}}, "grids = {}: unknown key; did you mean 'grid'?"),
        ({"base_recipe": str(RECIPES / "ablations" / "kernels.yaml")}, "must be a fine-tuning one"),
    ],
)
def test_every_mistake_is_found_before_anything_runs(file, ebft, content, says):
    path = file(**content)
    status, out, err = ebft("validate", str(path))
    assert status == 2, out
    assert says in err
    assert "Traceback" not in err


def test_all_mistakes_are_said_at_once(file, ebft):
    path = file(grid={"sampler.n": [0, 4], "reward.diversity": [-1, 1]})
    lines = ebft("validate", str(path))[2].splitlines()
    assert len(lines) == 4  # of the four arms: two have one mistake, one has both
    assert all(line.startswith(f"{path}: arm ") for line in lines)


def test_the_dry_run_lists_runs_and_what_they_cost(file, ebft):
    status, out, _ = ebft(
        "ablate", str(file(grid={"sampler.n": [2, 4]}, seeds=[0, 1])), "--dry-run"
    )
    assert status == 0
    assert "# 2 arms × 2 seeds = 4 runs" in out
    assert "n=2" in out
    assert "TFLOP of training" in out


def test_a_recipe_is_no_study(ebft):
    status, _, err = ebft("study", str(BASE))
    assert status == 2
    assert err.strip().endswith(f"not a study; `ebft run {BASE}` runs it")


def test_a_file_system_without_locks_is_refused(file, ebft, monkeypatch):
    import fcntl

    def no_locks(descriptor, operation):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    status, _, err = ebft("study", str(file()))
    assert status == 2
    assert "its files cannot be locked (Function not implemented)" in err


def test_what_the_runs_need_and_is_not_here_is_said_before_they_start(file, ebft, tmp_path):
    needs = {"data.path": str(tmp_path / "no.jsonl"), "model.path": str(tmp_path / "nothing")}
    path = file(overrides=needs, grid={"sampler.n": [2, 4]})
    lines = [f"model.path = {tmp_path}/nothing: no such folder", f"data.path = {tmp_path}/no.jsonl"]
    status, out, _ = ebft("validate", str(path))
    assert status == 0
    assert [out.count(line) for line in lines] == [1, 1]
    status, _, err = ebft("ablate", str(path))
    assert status == 2
    assert [err.count(f"{path}: of its runs: {line}") for line in lines] == [1, 1]
    assert not (tmp_path / "out").exists()
