"""Where parts come from, and every way in which that goes wrong."""

import re
import textwrap
from pathlib import Path

import pytest

from ebft.errors import PluginError
from ebft.parts import hooks as hookspecs
from ebft.parts.interfaces import __dict__ as interfaces
from ebft.parts.modules import find_plugin
from ebft.parts.registry import BUILT_IN, KINDS, load_registry

HOOKS = [f"register_{kind}" for kind in KINDS]

FEATURE_MAP = """
import ebft

class Lengths(ebft.FeatureMapPart):
    '''The length of each rollout.'''

    scale: float = 1.0

    def __call__(self, rollouts):
        raise NotImplementedError

@ebft.hookimpl
def register_feature_maps():
    return {"lengths": Lengths}
"""


def write(path: Path, source: str) -> str:
    path.write_text(textwrap.dedent(source))
    return str(path)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a distribution with one module and an entry point for it."""

    def install(name: str, source: str) -> None:
        info = tmp_path / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[ebft]\n{name} = {name}_module\n")
        write(tmp_path / f"{name}_module.py", source)
        monkeypatch.syspath_prepend(tmp_path)

    return install


def test_a_part_of_another_base_class_is_told_which_to_derive_from(tmp_path):
    old = write(tmp_path / "old.py", FEATURE_MAP.replace("FeatureMapPart", "Part"))
    says = r"old.py: Lengths is one of the feature_maps, so it must derive from ebft.FeatureMapPart"
    with pytest.raises(PluginError, match=says):
        load_registry([old])


def test_built_ins_register_like_any_plug_in():
    kinds = load_registry().kinds()
    assert set(kinds) == set(KINDS)
    origins = {part.origin for named in kinds.values() for part in named.values()}
    assert {f"ebft ({module})" for module in BUILT_IN} == origins


def test_a_file_registers_a_feature_map(tmp_path):
    registry = load_registry([write(tmp_path / "lengths.py", FEATURE_MAP)])
    registered = registry.kinds()["feature_maps"]["lengths"]
    assert registered.origin == str(tmp_path / "lengths.py")
    part = registry.parse("feature_maps", {"_component_": "lengths", "scale": 3})
    assert part.scale == 3.0
    assert registry.name_of(type(part)) == "lengths"
    assert "hidden_states" in registry.kinds()["feature_maps"]


def test_a_module_name_registers_too(tmp_path, monkeypatch):
    write(tmp_path / "lengths_by_name.py", FEATURE_MAP)
    monkeypatch.syspath_prepend(tmp_path)
    assert "lengths" in load_registry(["lengths_by_name"]).kinds()["feature_maps"]


def test_an_installed_distribution_registers(install):
    install("fakedist", FEATURE_MAP)
    registered = load_registry().kinds()["feature_maps"]["lengths"]
    assert registered.origin == "fakedist 1.2 (fakedist_module)"


def test_a_plug_in_that_is_installed_and_named_counts_once(install):
    install("namedtoo", FEATURE_MAP)
    assert "lengths" in load_registry(["namedtoo_module"]).kinds()["feature_maps"]


def test_a_module_that_is_not_installed_is_said():
    for name in ("no_such_plugin", "no_such_plugin.parts"):
        with pytest.raises(PluginError, match=f"plug-in {name}: there is no such module; install"):
            load_registry([name])


def test_duplicate_names_are_refused_with_both_origins(tmp_path):
    source = FEATURE_MAP.replace('"lengths":', '"hidden_states":')
    plugin = write(tmp_path / "clash.py", source)
    with pytest.raises(PluginError) as error:
        load_registry([plugin])
    message = str(error.value)
    assert "feature_maps 'hidden_states'" in message
    assert "ebft (ebft.features)" in message
    assert plugin in message


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("raise RuntimeError('no network card')", "no network card"),
        ("import a_package_that_is_not_there", "a_package_that_is_not_there"),
        ("x = 1\ndef f(:", "bad.py, line 2: "),
        ("x = 1", "none of ebft's hooks"),
        (
            "import ebft\n@ebft.hookimpl\ndef register_reward():\n    return {}",
            "there is no hook register_reward; did you mean 'register_rewards'?",
        ),
        ("x = 1\ny = x / 0", "bad.py, line 2)"),
        ("import ebft\n@ebft.hookimpl\ndef register_data():\n    return {'x': 3}", "'x' is not a"),
        ("import ebft\n@ebft.hookimpl\ndef register_data():\n    return 1 / 0", "ZeroDivision"),
        ("import ebft\n@ebft.hookimpl\ndef register_data(a):\n    return {}", "a"),
    ],
)
def test_a_bad_plug_in_is_named_with_its_reason(tmp_path, install, source, says):
    plugin = write(tmp_path / "bad.py", source)
    with pytest.raises(PluginError, match=re.escape(says)) as error:
        load_registry([plugin])
    assert plugin in str(error.value)


def test_hooks_may_have_other_names_and_modules_anything_in_them(tmp_path):
    source = (
        "from unittest.mock import call\nimport torch\nimport ebft\nops = torch.ops\n"
        "@ebft.hookimpl(specname='register_rewards')\ndef mine():\n    return {}\n"
    )
    load_registry([write(tmp_path / "odd.py", source)])
    wrong = source.replace("register_rewards", "register_reward")
    with pytest.raises(PluginError, match="there is no hook register_reward; did you mean"):
        load_registry([write(tmp_path / "wrong.py", wrong)])


def test_a_bad_distribution_is_named(install):
    install("broken", "raise RuntimeError('out of order')")
    with pytest.raises(PluginError, match=r"broken 1\.2 \(broken_module\).*out of order"):
        load_registry()


def test_a_file_is_looked_for_beside_the_recipe(tmp_path, monkeypatch):
    here, recipes = tmp_path / "here", tmp_path / "recipes"
    here.mkdir(), recipes.mkdir()
    monkeypatch.chdir(here)
    (recipes / "mine.py").touch()
    assert find_plugin("mine.py", [recipes]) == str(recipes / "mine.py")
    assert find_plugin("mine", [recipes]) == str(recipes / "mine.py"), "no module is called that"
    (here / "mine.py").touch()
    assert find_plugin("mine.py", [recipes]) == "mine.py"
    assert find_plugin("mine", [recipes]) == "mine", "it is in the working directory"
    assert find_plugin("a.module", [recipes]) == "a.module"
    assert find_plugin("json", [recipes]) == "json"
    with pytest.raises(PluginError, match=r"plugins: other\.py: no such file; looked for"):
        find_plugin("other.py", [recipes])


def test_an_unknown_component_names_the_close_one():
    with pytest.raises(ValueError, match="none of the samplers is named 'hf_tre'; did you mean"):
        load_registry().find("samplers", "hf_tre")


def test_a_dotted_path_finds_an_unregistered_part():
    registry = load_registry()
    part = registry.find("baselines", "ebft.baselines.none.NoBaseline")
    assert part is registry.find("baselines", "none")
    with pytest.raises(ValueError, match="not a subclass"):
        registry.find("baselines", "torch.nn.Linear")
    with pytest.raises(ValueError, match="cannot be imported"):
        registry.find("baselines", "ebft.baselines.nowhere.Part")


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented(hook):
    docstring = getattr(hookspecs, hook).__doc__
    assert docstring
    built = re.search(r"build to an? `(\w+)`", docstring)
    assert built, "the docstring says which interface a part builds to"
    assert built[1] in interfaces


def test_the_page_lists_every_hook_with_its_interface():
    page = (Path(__file__).parents[2] / "docs" / "hooks.md").read_text()
    listed = dict(re.findall(r"^\| `(register_\w+)` \| `(\w+)` \|", page, re.M))
    assert list(listed) == HOOKS
    for hook, interface in listed.items():
        assert f"`{interface}`" in getattr(hookspecs, hook).__doc__


def test_the_example_of_the_page_works(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "hooks.md").read_text()
    example = re.search(r"```python title=.*?\n(.*?)```", page, re.S)
    assert example
    registry = load_registry([write(tmp_path / "my_baseline.py", example[1])])
    part = registry.parse("baselines", {"_component_": "constant", "value": 0.5})
    assert part.claim().unbiased
