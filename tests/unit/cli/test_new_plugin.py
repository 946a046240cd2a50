"""`ebft new-plugin` writes a package whose own tests pass, or nothing."""

import ast
import errno
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ebft.cli import new_plugin
from ebft.parts.registry import load_registry

CHECKOUT = Path(__file__).parents[3]
EXAMPLE = CHECKOUT / "plugins" / "ebft-example"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_its_tests(folder: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, check=True,
    )  # fmt: skip


def test_what_it_writes_passes_its_own_tests(ebft, here):
    status, out, err = ebft("new-plugin", "my-features")
    assert status == 0, err
    assert "cd my-features && pytest" in out
    folder = here / "my-features"
    written = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert written == {
        "README.md", "my_features.py", "pyproject.toml", "recipe.yaml",
        "tests/test_my_features.py",
    }  # fmt: skip
    assert os.listdir(here) == ["my-features"], "nothing else is left"
    assert not any("example" in path.read_text() for path in folder.rglob("*") if path.is_file())
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == "my-features"
    assert project["entry-points"]["ebft"] == {"my-features": "my_features"}
    run_its_tests(folder)


def test_the_example_passes_its_own_tests():
    run_its_tests(EXAMPLE)


def test_the_example_is_what_is_written(here):
    new_plugin.write_plugin("ebft-example", here / "copy")
    for file in new_plugin.FILES:
        assert (here / "copy" / file).read_text() == (EXAMPLE / file).read_text()
    kept = {p.relative_to(EXAMPLE).as_posix() for p in EXAMPLE.rglob("*") if p.is_file()}
    assert {name for name in kept if not name.endswith(".pyc")} == set(new_plugin.FILES)


def test_the_feature_map_is_short():
    tree = ast.parse((EXAMPLE / "ebft_example.py").read_text())
    (part,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    about_itself = ("claim", "base_depth")
    functions = [f for f in part.body if isinstance(f, ast.FunctionDef)]
    computing = [f for f in functions if f.name not in about_itself]
    lines = sum(n.end_lineno - n.lineno + 1 for f in computing for n in f.body)
    assert lines + len(computing) <= 10


def test_two_of_them_can_be_installed(ebft, here, monkeypatch):
    for name in ("first-map", "second-map"):
        assert ebft("new-plugin", name)[0] == 0
        monkeypatch.syspath_prepend(here / name)
    assert {"first_map", "second_map"} <= set(
        load_registry(["first_map", "second_map"]).kinds()["feature_maps"]
    )


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("My-Features", "'My-Features' cannot name a package: give lower-case"),
        ("../up", "cannot name a package"),
        ("2nd", "cannot name a package"),
        ("a--b", "cannot name a package"),
        ("class", "'class' is reserved by Python; give another name, e.g. my-class"),
        ("json", "'json' is reserved by Python"),
        ("torch", "a package called 'torch' is already installed"),
        ("there", "there already exists; give another name, or remove it"),
    ],
)
def test_a_bad_name_is_refused(ebft, here, name, says):
    (here / "there").mkdir()
    status, _, err = ebft("new-plugin", name)
    assert status == 2
    assert says in err
    assert os.listdir(here) == ["there"]
    assert not os.listdir(here / "there")


def test_nothing_half_written_stays_after_an_error(ebft, here, monkeypatch):
    write_text, written = Path.write_text, []

    def full(path, text, **options):
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        return write_text(path, text, **options)

    monkeypatch.setattr(Path, "write_text", full)
    status, _, err = ebft("new-plugin", "my-features")
    assert (status, err) == (2, "cannot write my-features: No space left on device\n")
    assert os.listdir(here) == []
