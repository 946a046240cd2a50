"""What a recipe, a model, a data set or a checkpoint from somebody else can and cannot do."""

import ast
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import ebft as package
from ebft.errors import PluginError, UserError
from ebft.models.load import load_policy
from ebft.models.options import ModelOptions
from ebft.parts.registry import load_registry
from tests.conftest import RECIPES

SECRET = "planted-4f1c9e07"
ROOT = Path(package.__file__).parent


def artefacts(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("fails", [False, True])
def test_no_secret_of_the_environment_is_written_anywhere(
    ebft, tiny_run, tmp_path, monkeypatch, fails
):
    for name in ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "DATABASE_PASSWORD"):
        monkeypatch.setenv(name, SECRET)
    more = ["optimizer.lr=1e30", "lr_scheduler=null"] if fails else []
    status, out, err = ebft(*tiny_run(*more))
    assert status == (1 if fails else 0), err
    assert SECRET not in out + err
    files = artefacts(tmp_path / "run")
    assert files
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []


@pytest.mark.parametrize("value", ["${oc.env:HF_TOKEN}", "${oc.${which}:HF_TOKEN}"])
def test_a_recipe_cannot_read_the_environment(ebft, tiny_run, tmp_path, monkeypatch, value):
    """What a recipe resolves to is saved, with whatever it has read."""
    monkeypatch.setenv("HF_TOKEN", SECRET)
    recipe = tmp_path / "recipe.yaml"
    source = Path(tiny_run()[1]).read_text()
    recipe.write_text(source + f"\nwhich: env\nreport: {value}\n")
    status, out, err = ebft("validate", str(recipe))
    assert status == 2
    assert "recipes do not read environment variables (HF_TOKEN)" in err
    assert "leave a secret out" in err
    assert SECRET not in out + err


EVIL = "from pathlib import Path\nPath({mark!r}).touch()\n"


@pytest.fixture
def mark(tmp_path):
    """A file that is there if foreign code was run."""
    return tmp_path / "foreign-code-was-run"


def test_plugins_load_only_if_named(ebft, tiny_run, tmp_path, mark, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    code = EVIL.format(mark=str(mark))
    for name in ("plugin.py", "ebft_plugin.py", "conftest.py", "recipe.py", "sitecustomize.py"):
        (folder / name).write_text(code)
    (folder / "recipe.yaml").write_text(Path(tiny_run()[1]).read_text())
    monkeypatch.chdir(folder)
    assert ebft("validate", "recipe.yaml")[0] == 0
    assert not mark.exists()
    (folder / "plugin.py").write_text(code + "raise ImportError('loaded')\n")
    with pytest.raises(PluginError, match="loaded"):
        load_registry([str(folder / "plugin.py")])
    assert mark.exists()


@pytest.mark.parametrize(
    "line", ["a: !!python/object/apply:os.system [touch {mark}]", "a: !!python/name:os.system ''"]
)
def test_yaml_makes_no_objects(ebft, tmp_path, mark, line):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(line.format(mark=mark) + "\n")
    assert ebft("validate", str(recipe))[0] == 2
    assert not mark.exists()


class Touch:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mknod, (self.path,)


def test_weights_that_are_pickles_are_refused(tiny_model, tmp_path, mark):
    for file in tiny_model.iterdir():
        if file.suffix == ".json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Touch(mark)))
    torch.save({"x": Touch(mark)}, tmp_path / "model.bin")
    with pytest.raises(UserError, match=r"model\.path = .*: has its weights in \.bin files alone"):
        load_policy(ModelOptions(path=str(tmp_path)))
    assert not mark.exists()


def test_code_that_comes_with_a_model_is_not_run(tiny_model, tmp_path, mark):
    for file in tiny_model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(EVIL.format(mark=str(mark)))
    with pytest.raises(UserError, match=r"model\.path = "):
        load_policy(ModelOptions(path=str(tmp_path)))
    assert not mark.exists()


def test_checkpoints_hold_tensors_and_text(ebft, tiny_run, tmp_path):
    assert ebft(*tiny_run("baseline=moving_average"))[0] == 0
    for path in artefacts(tmp_path / "run" / "checkpoints"):
        if path.suffix == ".safetensors":
            load_file(path)
        else:
            path.read_text(encoding="utf-8")


def sources():
    plugins = ROOT.parent / "plugins"
    files = [*ROOT.rglob("*.py"), *(p for p in plugins.rglob("*.py") if "tests" not in p.parts)]
    # The sandbox runs what a model wrote, which its own tests are about; tiny programs are our own.
    run = (ROOT / "sandbox", ROOT / "data" / "tiny_programs" / "program.py")
    return [file for file in files if file.parent not in run and file not in run]


def test_no_source_unpickles_or_evaluates():
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
    for file in sources():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name.split(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module.split(".")[0]]
            assert forbidden.isdisjoint(names), file
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert called not in ("eval", "exec", "os.system", "yaml.load"), file
                if called == "torch.load":
                    assert keywords.get("weights_only") == "True", file
                assert keywords.get("trust_remote_code") != "True", file
                assert keywords.get("shell") != "True", file


def test_foreign_code_is_off_by_default():
    assert ModelOptions(path="x").trust_remote_code is False


def test_a_dry_run_runs_no_code_of_a_model(ebft, tmp_path):
    """Also where the recipe says that a run may."""
    folder = tmp_path / "model"
    folder.mkdir()
    own = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": own}))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    given = (f"model.path={folder}", "model.trust_remote_code=true")
    status, out, _ = ebft("run", str(RECIPES / "ebft_full.yaml"), "--dry-run", *given)
    assert status == 0
    assert "no estimate: model.path = " in out
    assert not (tmp_path / "ran").exists()
