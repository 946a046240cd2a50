"""Files build on each other in one direction, in the order of CONTRIBUTING's table."""

import ast
import re
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = [
    ROOT / "ebft",
    ROOT / "plugins/ebft-vllm/ebft_vllm",
    ROOT / "plugins/ebft-comet/ebft_comet",
    ROOT / "plugins/ebft-sentence-transformers/ebft_sentence_transformers",
]


def modules(package):
    """The files of a package by the names of their modules."""
    found = {}
    for file in package.rglob("*.py"):
        names = list(file.relative_to(package.parent).with_suffix("").parts)
        found[".".join(names[:-1] if names[-1] == "__init__" else names)] = file
    return found


@cache
def needs(package):
    """What each module of a package imports of that package, also in functions."""
    files = modules(package)
    graph = {name: set() for name in files}
    for name, file in files.items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module in files:
                named = {f"{node.module}.{alias.name}" for alias in node.names}
                inside = named & files.keys()
                graph[name] |= inside | ({node.module} if named - inside else set())
            elif isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names} & files.keys()
    return {name: found - {name} for name, found in graph.items()}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_no_files_import_each_other_in_a_circle(package):
    TopologicalSorter(needs(package)).prepare()  # raises CycleError with the circle


def rows():
    """The packages and modules of each row of CONTRIBUTING's table, from the bottom up."""
    lines = ROOT.joinpath("CONTRIBUTING.md").read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| in `ebft/`"))
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            return
        yield re.findall(r"`(\w+)`", line.split("|")[1])


def test_imports_follow_the_order_of_the_table():
    height = {name: row for row, names in enumerate(rows()) for name in names}
    there = {path.stem for path in ROOT.joinpath("ebft").iterdir() if is_code(path)}
    assert height.keys() == there
    upwards = [
        f"{name} imports {other}"
        for name, found in needs(ROOT / "ebft").items()
        for other in found
        if name != "ebft" and other != "ebft"
        if height[other.split(".")[1]] > height[name.split(".")[1]]
    ]
    assert not upwards


def is_code(path):
    if path.is_dir():
        return any(path.glob("*.py"))
    return path.suffix == ".py" and path.stem != "__init__"


def test_the_algorithm_knows_nothing_of_runs():
    graph = needs(ROOT / "ebft")

    def below(name):
        return {name}.union(*(below(other) for other in graph[name]))

    packages = {name.split(".")[1] for name in below("ebft.training.loop") if name != "ebft"}
    assert {"rollout", "parts"} <= packages
    assert not packages & {"runs", "evaluation", "checkpoints", "config", "data", "cli", "study"}
