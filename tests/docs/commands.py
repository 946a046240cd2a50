"""Whether a command of the documentation would do what its reader expects, without doing it."""

import argparse
import os
import re
import shlex
import tomllib
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement

from ebft.cli import tune
from ebft.cli.main import main, parse
from ebft.config.load import load_recipe
from tests.docs.pages import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = {
    target for line in re.findall(r"^([\w -]+):(?!=)", MAKEFILE, re.M) for target in line.split()
}
TARGETS |= {f".venv{file}" for file in re.findall(r"^\$\(VENV\)(/\S+):", MAKEFILE, re.M)}
VARIABLES = set(re.findall(r"^(\w+) *[?:]?=", MAKEFILE, re.M))
PARSED = {"doctor", "report", "compare"}
"""Subcommands of which no more can be said beforehand than that their arguments are right."""
SAMPLED = ROOT / "recipes" / "ebft_full.yaml"
"""In place of the recipe of a checkpoint that a command samples from."""
TOOLS = {"ruff", "mypy", "pytest", "lm_eval"}
"""Installed by an extra; their arguments are their own business."""
EXTRAS = set(
    tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
)


def command_lines(text: str) -> list[list[str]]:
    """The commands of a block, each as its words; comments and continued lines are understood."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def check(words: list[str], more: list[str]) -> None:
    """Fails if the command would be a mistake. Cheap ones are carried out, in the present folder.

    `more` are overrides that the place lacks: a plug-in that the page assumes to be installed.
    """
    program, *rest = words
    match re.sub(r"^[\w.-]+/bin/", "", program), rest:  # of a virtual environment
        case "ebft", _:
            check_ebft(rest, more)
        case "tune", _:
            ours = tune.parse(rest)
            assert ours, f"torchtune's, not ours: {words}"
            check_ebft(["run", ours.file, *ours.rest], more)
        case "ebft-vllm", _:
            parse_server(rest)
        case "openssl", ["rand", "-hex", "32", ">", _]:
            pass
        case "make", [*targets]:
            for word in targets:
                variable, equals, _ = word.partition("=")
                assert variable in (VARIABLES if equals else TARGETS), word
        case "python", ["-m", module, *arguments]:
            assert module in TOOLS or find_spec(module), module
            paths = [a for a in arguments if "/" in a and "=" not in a]  # and no overrides
            assert all(Path(path).exists() for path in paths), words
        case "python", ["-c", source]:
            compile(source, "<page>", "exec")
        case "pip", ["install", *arguments]:
            check_pip([word for word in arguments if word != "--no-deps"])
        case "pip", ["uninstall", "-y", *_]:
            pass
        case "cd", [folder]:
            os.chdir(folder)
        case "diff", [_, _]:
            pass
        case "export", [_]:
            pass
        case tool, _:
            assert tool in TOOLS, f"tests/docs/commands.py does not know {tool!r}"


def parse_server(words: list[str]) -> None:
    from ebft_vllm.command import parse as parse_vllm

    try:
        parse_vllm(words)
    except SystemExit as stop:
        raise AssertionError(f"not a command line: ebft-vllm {shlex.join(words)}") from stop


def check_ebft(words: list[str], more: list[str]) -> None:
    try:
        arguments: argparse.Namespace = parse(words)
    except SystemExit as stop:
        raise AssertionError(f"not a command line: ebft {shlex.join(words)}") from stop
    if words[0] in ("ls", "cp", "new-plugin"):
        assert main(words) == 0, words
    elif words[0] == "sample":
        load_recipe(arguments.recipe or SAMPLED, [*arguments.overrides, *more])
    elif words[0] == "study":  # its runs name their plug-ins
        load_recipe(arguments.file, arguments.overrides)
    elif "overrides" in arguments:
        load_recipe(arguments.file, [*arguments.overrides, *more])
    else:
        assert words[0] in PARSED, f"tests/docs/commands.py does not know `ebft {words[0]}`"


def check_pip(arguments: list[str]) -> None:
    """Folders have a project in them, everything else is a requirement."""
    for argument in arguments:
        if argument in ("-e", "."):
            continue
        if argument.startswith("plugins/"):
            assert (ROOT / argument / "pyproject.toml").is_file(), argument
        else:
            requirement = Requirement(argument)
            if requirement.name == "ebft":
                assert requirement.extras <= EXTRAS, argument
