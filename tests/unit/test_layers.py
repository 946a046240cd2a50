"""Packages build on each other in one direction: none needs one that needs it."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import ebft

ROOT = Path(ebft.__file__).parent
PLUGGING = {"parts", "plugins", "hookspecs"}
"""A part is parsed by the registry of plug-ins, whose hooks return parts: one thing in three."""


def package(module):
    """The package, or the module at the top, that a module is of."""
    name = module.split(".")[1]
    return "plugging" if name in PLUGGING else name


def imported(file):
    """The modules of ebft that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "ebft":
            yield from (f"ebft.{alias.name}" for alias in node.names if is_module(alias.name))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ebft."):
            yield node.module


def is_module(name):
    return (ROOT / name).is_dir() or (ROOT / f"{name}.py").exists()


def needs():
    graph = {}
    for file in ROOT.rglob("*.py"):
        module = "ebft." + ".".join(file.relative_to(ROOT).with_suffix("").parts)
        if module != "ebft.__init__":
            others = {package(name) for name in imported(file)} - {package(module)}
            graph.setdefault(package(module), set()).update(others)
    return graph


def all_below(graph, name):
    return set().union(*({other} | all_below(graph, other) for other in graph[name]))


def test_no_package_needs_one_that_needs_it():
    TopologicalSorter(needs()).prepare()  # raises CycleError with the cycle


def test_the_algorithm_knows_nothing_of_runs():
    below = all_below(needs(), "training")
    assert {"rollout", "plugging"} <= below
    assert not below & {"runs", "evaluation", "checkpoints", "config", "data", "cli", "study"}
