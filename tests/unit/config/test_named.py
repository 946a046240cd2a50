"""What reading a recipe may import and call: what the recipe lists, and classes of the kind."""

import json
import sys

import pytest
from pydantic import TypeAdapter, ValidationError

from ebft.config.class_kinds import LoggerComponent, OptimizerComponent, ScheduleComponent
from ebft.config.load import load_recipe
from ebft.errors import UserError
from ebft.parts.registry import Registry, load_registry
from tests.conftest import RECIPES

FULL = RECIPES / "ebft_full.yaml"
MARKS = "from pathlib import Path\nPath({mark!r}).touch()\n"
REWARD = """
import ebft
class Reward(ebft.RewardPart):
    pass
@ebft.hookimpl
def register_rewards():
    return {"named_reward": Reward}
"""
KINDS = (OptimizerComponent, ScheduleComponent, LoggerComponent)


def get_a_schedule(optimizer):
    """What only torchtune's and transformers' functions are known to do."""
    raise AssertionError(optimizer)


@pytest.fixture
def mark(tmp_path):
    """A file that is there if something was run."""
    return tmp_path / "run"


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module that Python finds, called `named_…` so that no test meets another's."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, content: str) -> str:
        (tmp_path / f"{name}.py").write_text(content)
        return name

    yield write
    for name in [name for name in sys.modules if name.startswith("named_")]:
        del sys.modules[name]


def refused(*overrides: str) -> str:
    with pytest.raises(UserError) as error:
        load_recipe(FULL, overrides)
    return str(error.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("importable", [None, load_registry().importable])
@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        ("pydoc.pipepager", {"text": "x", "cmd": "touch {mark}"}),
        ("os.system", {"command": "touch {mark}"}),
        ("subprocess.Popen", {"args": ["touch", "{mark}"]}),
        ("builtins.exec", {}),
        ("torch.os.system", {"command": "touch {mark}"}),
        ("torch.load", {"f": "{mark}"}),
        ("torch.save", {"obj": 1, "f": "{mark}"}),
        ("torch.nn.Linear", {"in_features": 1, "out_features": 1}),
        ("ebft.cli.main.main", {"argv": ["new-plugin", "{mark}"]}),
        ("torchtune.training.lr_schedulers.get_lr", {}),
        ("transformers.optimization.TrainerCallback", {}),
        ("logging.FileHandler", {"filename": "{mark}"}),
        (f"{__name__}.get_a_schedule", {}),
    ],
)
def test_a_section_calls_nothing_of_another_kind(kind, importable, path, arguments, mark):
    given = json.loads(json.dumps(arguments).replace("{mark}", str(mark)))
    context = {"registry": Registry({}, importable)}
    refused = f"must be {kind.wanted[:9]}|is not imported|cannot|needs torchtune, which is not inst"
    with pytest.raises(ValidationError, match=refused):
        TypeAdapter(kind).validate_python({"_component_": path, **given}, context=context)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        (OptimizerComponent, "torch.optim.lr_scheduler.StepLR"),
        (ScheduleComponent, "torch.optim.AdamW"),
        (ScheduleComponent, "torch.optim.lr_scheduler.ReduceLROnPlateau"),
        (LoggerComponent, "torch.optim.AdamW"),
    ],
)
def test_a_class_of_another_section(kind, path):
    with pytest.raises(ValidationError, match=f"must be {kind.wanted[:9]}"):
        TypeAdapter(kind).validate_python({"_component_": path})


CODE = ("optimizer={}.X", "lr_scheduler={}.X", "metric_loggers=[{{_component_: {}.X}}]",
        "reward={}.X", "sampler={}.inner.X", "recipe={}:X", "plan={}.X",
        "reward={{_component_: verifiable, verifier: '{}:X'}}",
        "evaluation.evaluators=[{{_component_: accuracy, verifier: {}.X}}]")  # fmt: skip


@pytest.mark.parametrize("override", CODE)
def test_no_module_is_imported_that_the_recipe_does_not_list(override, module, mark):
    name = module("named_evil", MARKS.format(mark=str(mark)))
    says = refused(override.format(name))
    assert "is not imported, for the recipe does not list its module" in says
    assert f"add {name}" in says
    assert not mark.exists()


def test_a_file_among_the_plugins_is_not_the_module_of_that_name(module, tmp_path):
    name = module("named_file", REWARD)
    part = f"reward={name}.Reward"
    says = refused(f"plugins=[{tmp_path / name}.py]", part)
    assert f"add {name} to plugins, as a module and not as a .py file" in says
    load_recipe(FULL, [f"plugins=[{name}]", part])


def test_a_module_with_the_name_of_a_library_in_front_is_another(module, mark):
    name = module("torch_named_evil", MARKS.format(mark=str(mark)))
    assert "is not imported" in refused(f"reward={name}.X")


def test_what_the_recipe_lists_is_imported(module):
    name = module(
        "named_mine",
        "import ebft\nfrom torch.optim import SGD\n\n\nclass Brief(ebft.RewardPart):\n"
        "    def pairwise(self):\n        return False\n\n\n"
        "class Mine(SGD):\n    pass\n\n\ndef passes(attempt):\n    return 1\n",
    )
    listed = f"plugins=[{name}]"
    own = (f"reward={name}.Brief", f"optimizer={{_component_: {name}.Mine, lr: 0.5}}")
    options = load_recipe(FULL, [listed, *own]).options
    assert type(options.reward).__name__ == "Brief"
    assert options.optimizer.path == "named_mine.Mine"
    verifiable = f"reward={{_component_: verifiable, verifier: {name}:passes}}"
    rewarded = (verifiable, "feature_map=null", "evaluation.evaluators=[]")
    assert load_recipe(FULL, [listed, *rewarded]).options.reward.verifier == f"{name}:passes"
    assert "must be an optimizer" in refused(listed, f"optimizer={name}.Brief")


@pytest.mark.parametrize(
    "content",
    ["import ebft\n\n\ndef register_rewards():\n    return {}\n", "raise SystemExit(0)\n"],
)
def test_a_module_that_is_no_plug_in(module, content):
    name = module("named_odd", content)
    assert f"plug-in {name} " in refused(f"plugins=[{name}]")


def test_the_working_directory_is_searched_for_plug_ins_alone(ebft, tmp_path, mark, monkeypatch):
    """A file there would be run in the place of a package that a library tries to import."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "named_optional.py").write_text(MARKS.format(mark=str(mark)))
    (tmp_path / "named_listed.py").write_text(
        "import ebft\n\n\n@ebft.hookimpl\ndef register_rewards():\n"
        "    try:\n        import named_optional\n    except ImportError:\n        pass\n"
        "    return {}\n"
    )
    before = list(sys.path)
    status, _, err = ebft("validate", str(FULL), "plugins=[named_listed]")
    assert status == 0, err
    assert sys.path == before
    assert not mark.exists()


def test_making_a_logger_leaves_the_path_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    board = "ebft.report.loggers.TensorBoardLogger"
    logger = f"metric_loggers=[{{_component_: {board}, log_dir: {tmp_path}}}]"
    (found,) = load_recipe(FULL, [logger]).options.metric_loggers
    before = list(sys.path)
    found.instantiate().close()
    assert sys.path == before
