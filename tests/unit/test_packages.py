"""The tested versions: one table, which pyproject.toml, constraints/ and the docs agree with."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from ebft.parts import packages
from ebft.parts.packages import TESTED, Versions, outside, untested

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
OPEN = ("torch", "transformers", "peft", "torchao", "vllm")
"""Packages of which a newer release is accepted."""


def requirements():
    """Every requirement of the project, but for the extra that pins what torchtune needs."""
    lists = [PROJECT["dependencies"], *(EXTRAS[it] for it in EXTRAS if it != "torchtune")]
    return [Requirement(line) for lines in lists for line in lines]


def pinned(name):
    """The versions of a file in constraints/, by package."""
    lines = ROOT.joinpath("constraints", f"{name}.txt").read_text().splitlines()
    exact = [line.split("==") for line in lines if "==" in line]
    return {package.lower(): version for package, version in exact}


@pytest.mark.parametrize("package", OPEN)
def test_a_package_needs_the_oldest_that_is_tested_or_any_newer_one(package):
    for requirement in requirements():
        if requirement.name == package:
            assert str(requirement.specifier) == f">={TESTED[package].oldest}"


def test_python():
    assert PROJECT["requires-python"] == f">={TESTED['python'].oldest}"


@pytest.mark.parametrize(("end", "name"), [(0, "oldest"), (1, "newest")])
def test_the_sets_at_both_ends_have_what_the_table_says(end, name):
    versions = pinned(name)
    for package in ("torch", "transformers", "peft", "torchao"):
        assert Version(versions[package]).release[:2] == Version(TESTED[package][end]).release


def test_the_oldest_set_has_the_lower_bounds():
    """A lower bound that nothing was run with would be a promise that nobody has checked."""
    versions = pinned("oldest")
    for requirement in map(Requirement, PROJECT["dependencies"]):
        (lower,) = (it.version for it in requirement.specifier if it.operator == ">=")
        found = Version(versions[requirement.name.lower()])
        assert found.release[: len(Version(lower).release)] == Version(lower).release


def test_the_docs_have_the_table():
    page = ROOT.joinpath("docs", "versions.md").read_text()
    for package, tested in TESTED.items():
        assert f"| {package} | {tested.oldest} | {tested.newest} |" in page


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ("2.10.9", "older than 2.11"),
        ("2.11.0", None),
        ("2.11.0+cu130", None),
        ("2.15.3", None),
        ("2.16.0.dev20261130", "newer than 2.15"),
        ("3.0", "newer than 2.15"),
        ("built by hand", None),
    ],
)
def test_what_is_outside(monkeypatch, found, says):
    monkeypatch.setitem(TESTED, "torch", Versions("2.11", "2.15"))
    assert outside("torch", found) == says


def test_a_run_says_in_one_line_what_is_not_tested(ebft, tiny_run, monkeypatch):
    versions = {"torch": "99.1.0", "transformers": "1.0", "peft": None, "python": "3.11.7"}
    monkeypatch.setattr(packages, "installed", versions.get)
    says = (
        f"not tested with ebft so far: torch 99.1.0 (newer than {TESTED['torch'].newest}), "
        f"transformers 1.0 (older than {TESTED['transformers'].oldest})"
    )
    assert untested() == says
    # The run is then refused for another reason, which is quicker.
    status, _, err = ebft(*tiny_run("documents.length=4000"))
    assert status == 2
    assert err.splitlines().count(f"{says}; `ebft doctor` lists the tested versions") == 1


def test_what_is_inside_is_not_worth_a_line():
    assert untested(["python"]) is None


def test_each_optional_package_is_in_the_extra_that_is_said_to_install_it():
    distributions = {"lm_eval": "lm-eval"}
    for package, extra in packages.EXTRAS.items():
        names = {Requirement(line).name for line in EXTRAS[extra]}
        assert distributions.get(package, package) in names


def test_a_missing_package_is_one_line_with_the_command(monkeypatch):
    monkeypatch.setattr("ebft.parts.packages.find_spec", lambda name: None)
    assert packages.missing("peft") == (
        "needs peft, which is not installed; run: pip install 'ebft[lora]'"
    )
    assert packages.missing("torch") is None, "it is no optional package"
