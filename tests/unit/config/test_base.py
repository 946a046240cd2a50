"""`base:`: a recipe on top of another."""

import pytest
import yaml

from ebft.config.load import load_recipe
from ebft.config.read import read_recipe
from ebft.errors import UserError
from tests.conftest import RECIPES


def write(folder, name, content):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return file


@pytest.fixture
def full(tmp_path):
    return write(tmp_path, "full.yaml", (RECIPES / "ebft_full.yaml").read_text())


def test_only_what_differs_is_said(tmp_path, full):
    child = write(
        tmp_path, "child.yaml",
        {"base": "full.yaml", "sampler": {"n": 8}, "lr_scheduler": None, "training": {"steps": 5}},
    )  # fmt: skip
    options, whole = load_recipe(child).options, load_recipe(full).options
    assert (options.sampler.n, options.lr_scheduler, options.training.steps) == (8, None, 5)
    assert options.feature_map == whole.feature_map
    assert options.optimizer == whole.optimizer


def test_it_means_what_the_same_overrides_mean(tmp_path, full):
    child = write(
        tmp_path, "child.yaml",
        {"base": "full.yaml", "plan": {"_component_": "completion", "rollout_length": 5},
         "reward": "token_overlap", "sampler": {"temperature": 0.5}, "transforms": []},
    )  # fmt: skip
    overrides = ["plan=completion", "plan.rollout_length=5", "reward=token_overlap",
                 "sampler.temperature=0.5", "transforms=[]"]  # fmt: skip
    assert load_recipe(child).resolved == load_recipe(full, overrides).resolved
    assert load_recipe(child).resolved["plan"] == {"_component_": "completion", "rollout_length": 5}
    # `${plan}` in the base is the child's plan.
    assert load_recipe(child).options.evaluation.evaluators[1].plan.rollout_length == 5


def test_another_component_in_a_file_drops_options_without_a_warning(tmp_path, full, caplog):
    child = write(tmp_path, "child.yaml", {"base": "full.yaml", "reward": "token_overlap"})
    assert read_recipe(child).tree["reward"] == {"_component_": "token_overlap"}
    assert not caplog.records
    load_recipe(child, ["reward=feature_matching"])
    assert "feature_matching instead of token_overlap" in caplog.text


def test_bases_of_bases_from_their_own_folders(tmp_path, full):
    write(tmp_path, "shared/middle.yaml", {"base": "../full.yaml", "seed": 1, "sampler": {"n": 6}})
    child = write(tmp_path, "mine/child.yaml", {"base": "../shared/middle.yaml", "seed": 2})
    options = load_recipe(child, ["sampler.temperature=0.7"]).options
    assert (options.seed, options.sampler.n, options.sampler.temperature) == (2, 6, 0.7)
    assert [file.name for file in read_recipe(child).files] == [
        "child.yaml", "middle.yaml", "full.yaml",
    ]  # fmt: skip


def test_a_plug_in_is_looked_for_beside_the_base_too(tmp_path, full):
    write(tmp_path, "shared/part.py", "import ebft\n\n\nclass Two(ebft.RewardPart):\n"
          "    def pairwise(self):\n        return False\n\n\n"
          "@ebft.hookimpl\ndef register_rewards():\n    return {'two': Two}\n")  # fmt: skip
    write(tmp_path, "shared/middle.yaml", {"base": "../full.yaml", "plugins": ["part.py"]})
    child = write(tmp_path, "child.yaml", {"base": "shared/middle.yaml", "reward": "two"})
    assert type(load_recipe(child).options.reward).__name__ == "Two"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": {"base": "ful.yaml"}}, r"a.yaml: base = ful.yaml: no such file; did you mean 'full"),
        ({"a": {"base": "no/b.yaml"}}, r"a.yaml: base = no/b.yaml: no such file$"),
        ({"a": {"base": "a.yaml"}}, r"a.yaml: base = a.yaml: forms a circle"),
        (
            {"a": {"base": "b.yaml"}, "b": {"base": "c.yaml"}, "c": {"base": "./a.yaml"}},
            r"c.yaml: base = ./a.yaml: forms a circle, back to .*a.yaml",
        ),
        ({"a": {"base": ["full.yaml"]}}, r"base = \['full.yaml'\]: must be the path of another"),
        ({"a": {"base": "b.yaml"}, "b": "- 1\n"}, r"b.yaml: a recipe is a mapping"),
        ({"a": {"base": "full.yaml", "seed": {"x": 1}}}, r"a.yaml: seed.x: seed = 0 has no keys"),
    ],
)  # fmt: skip
def test_bad_bases(tmp_path, full, files, message):
    for name, content in files.items():
        write(tmp_path, f"{name}.yaml", content)
    with pytest.raises(UserError, match=message):
        load_recipe(tmp_path / "a.yaml")


def test_a_mistake_names_the_file_that_it_is_in(tmp_path, full):
    write(tmp_path, "middle.yaml", {"base": "full.yaml", "samplr": {"n": 2}, "seed": -1})
    child = write(tmp_path, "child.yaml", {"base": "middle.yaml", "sampler": {"n": 0}})
    with pytest.raises(UserError) as error:
        load_recipe(child, ["training.steps=0"])
    lines = str(error.value).replace(f"{tmp_path}/", "").splitlines()
    assert {line.split(" = ")[0] for line in lines} == {
        "middle.yaml: samplr",
        "middle.yaml: seed",
        "child.yaml: sampler.n",
        "command line: training.steps",
    }


def test_a_base_cannot_be_set_on_the_command_line(full):
    with pytest.raises(UserError, match=r"command line: base = other.yaml: unknown key"):
        load_recipe(full, ["base=other.yaml"])


def test_cp_and_dry_run_show_the_whole(ebft, tmp_path, full, monkeypatch):
    child = write(
        tmp_path, "child.yaml", "# What it is.\n#\n#   how to run it\n\nbase: full.yaml\nseed: 7\n"
    )
    monkeypatch.setattr("ebft.config.read.recipes_folder", lambda: tmp_path)
    copy = tmp_path / "copies" / "copy.yaml"
    copy.parent.mkdir()
    status, _, err = ebft("cp", "child", str(copy))
    assert status == 0, err
    text = copy.read_text()
    assert text.startswith("# What it is.\n#\n#   how to run it\n\nrecipe: finetune\nseed: 7\n")
    assert "base:" not in text
    assert "${training.steps}" in text
    assert load_recipe(copy).options == load_recipe(child).options
    assert ebft("cp", "full", str(copy), "--force")[0] == 0
    assert copy.read_text() == full.read_text()
    status, out, _ = ebft("run", str(child), "--dry-run")
    assert status == 0
    assert "seed: 7" in out
    assert "rollout_length: 8" in out


def test_a_section_that_is_wrong_as_a_whole_is_the_mistake_of_the_file_that_changed_it(
    tmp_path, full
):
    heads = {"model_type": "mamba2", "hidden_size": 64, "num_heads": 5}
    child = write(
        tmp_path, "child.yaml",
        {"base": "full.yaml", "model": {"path": None, "from_config": {"config": heads}}},
    )  # fmt: skip
    with pytest.raises(UserError, match=r"child\.yaml: model\.from_config\.config = mamba2: "):
        load_recipe(child)
