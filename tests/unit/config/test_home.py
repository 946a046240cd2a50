"""`~` in a recipe is the home folder, for no shell has seen what the file says."""

import pytest
import yaml

from ebft.checkpoints.folder import Checkpoints
from ebft.checkpoints.resume import find_resumption
from ebft.config.load import load_recipe
from ebft.errors import UserError
from ebft.models.embedded import cache_folder
from ebft.study.options import StudyOptions
from tests.conftest import RECIPES

EXAMPLE = RECIPES.parent / "plugins" / "ebft-example" / "ebft_example.py"


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture
def recipe(home):
    (home / "base.yaml").write_text((RECIPES / "ebft_full.yaml").read_text())
    (home / "my.py").write_text(EXAMPLE.read_text())
    file = home.parent / "recipe.yaml"

    def write(**content):
        content = {"base": "~/base.yaml", "output_dir": "~/runs/x", **content}
        file.write_text(yaml.safe_dump(content))
        return file

    return write


def test_every_path_of_a_recipe(recipe, home):
    found = load_recipe(recipe(data={"path": "~/texts"}, plugins=["~/my.py"])).options
    assert found.output_dir == home / "runs" / "x"
    assert found.data.path == home / "texts"
    assert found.plugins == (str(home / "my.py"),)


def test_a_model_and_the_cache(recipe, home, monkeypatch):
    found = load_recipe(recipe(model={"path": "~/model", "base": "org/~model"})).options
    assert (found.model.path, found.model.base) == (str(home / "model"), "org/~model")
    monkeypatch.setenv("EBFT_CACHE", "~/cache")
    assert cache_folder() == home / "cache"
    monkeypatch.setenv("EBFT_CACHE", "~nobody-here/cache")
    with pytest.raises(UserError, match=r"^EBFT_CACHE = ~nobody-here/cache: there is no home"):
        cache_folder()


def test_a_user_without_a_home(ebft, recipe, monkeypatch):
    def unknown(uid):
        raise KeyError(uid)

    file = recipe(model={"path": "~/model"})
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)
    status, out, err = ebft("validate", str(file))
    assert (status, out) == (2, "")
    assert err.startswith("HOME is not set, and user ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", [["validate", "recipe.yaml"], ["ls"], ["doctor"]])
def test_a_working_directory_that_was_deleted(ebft, tmp_path, monkeypatch, command):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    says = "the working directory has been deleted; change to another\n"
    assert ebft(*command) == (2, "", says)


def test_what_refers_to_output_dir_is_in_it(recipe, home):
    logger = {
        "_component_": "ebft.report.loggers.TensorBoardLogger",
        "log_dir": "${output_dir}/logs",
    }
    (found,) = load_recipe(recipe(metric_loggers=[logger])).options.metric_loggers
    assert found.arguments["log_dir"] == f"{home}/runs/x/logs"


def test_a_home_that_is_not_there(recipe):
    says = r"output_dir = ~nobody-here/x: there is no home ~nobody-here; give the whole path"
    with pytest.raises(UserError, match=says):
        load_recipe(recipe(), ["output_dir=~nobody-here/x"])


def test_the_base_of_a_study(home, tmp_path):
    said = {"recipe": "study", "output_dir": "out", "base_recipe": "~/base.yaml"}
    found = StudyOptions.model_validate(said, context={"source": tmp_path / "study.yaml"})
    assert found.base_recipe == home / "base.yaml"


def test_the_checkpoint_to_go_on_from(home):
    (home / "step-000020").mkdir()
    own = Checkpoints(home / "none", keep=1)
    with pytest.raises(UserError, match=r"step-000020: (?!no such folder).*give another"):
        find_resumption("~/step-000020", own, {}, may_differ=(), overwrite=False)
