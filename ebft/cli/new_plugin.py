"""`ebft new-plugin`: writes a package with one feature map, its test and its recipe."""

from __future__ import annotations

import argparse
import keyword
import re
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import ebft
from ebft.console import say
from ebft.errors import UserError

EPILOG = """\
examples:
  ebft new-plugin my-features
  cd my-features && pytest
"""
EXAMPLE = "ebft-example"
FILES = (
    "README.md", "ebft_example.py", "pyproject.toml", "recipe.yaml", "tests/test_ebft_example.py",
)  # fmt: skip
NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `new-plugin NAME`."""
    parser = subparsers.add_parser(
        "new-plugin",
        help="write a package with a feature map of your own, to change it",
        description="Writes an installable package into a new folder NAME: one feature map, its "
        "test, and a recipe that trains with it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="of the folder and the package: my-features")
    parser.set_defaults(command=new_plugin)


def new_plugin(arguments: argparse.Namespace) -> int:
    """Raises `UserError` for a name that cannot be one, or a folder that cannot be written."""
    name: str = arguments.name
    folder = Path(name)
    check_name(name)
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder} is there already; give another name, or remove it")
    check_module(module_name(name))
    write_plugin(name, folder)
    say(f"{folder}/: next, cd {folder} && pytest")
    return 0


def check_name(name: str) -> None:
    """Raises `UserError` unless it can name a distribution and, with _ for -, a module."""
    if not NAME.fullmatch(name):
        raise UserError(
            f"{name!r} cannot name a package: give lower-case letters and digits, starting with a "
            "letter, with - or _ between words, e.g. my-features"
        )


def check_module(module: str) -> None:
    """Raises `UserError` for a module that Python would not find, or that would hide another."""
    if keyword.iskeyword(module) or module in sys.stdlib_module_names:
        raise UserError(f"{module!r} is a name of Python's own; give another, e.g. my-{module}")
    if find_spec(module) is not None:
        raise UserError(f"a package called {module!r} is installed already; give another name")


def module_name(name: str) -> str:
    """The module of a distribution: my-features → my_features."""
    return name.replace("-", "_")


def example_folder() -> Path:
    """The package that is copied: inside ebft if that was built, beside it in a checkout."""
    package = Path(ebft.__file__).parent
    built = package / "_example"
    return built if built.is_dir() else package.parent / "plugins" / EXAMPLE


def write_plugin(name: str, folder: Path) -> None:
    """Writes the example under another name; `folder` is there whole or not at all.

    Raises `UserError` if that fails.
    """
    source = example_folder()
    try:
        partial = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
    try:
        for file in FILES:
            target = partial / renamed(file, name)
            target.parent.mkdir(exist_ok=True)
            text = (source / file).read_text(encoding="utf-8")
            target.write_text(renamed(text, name), encoding="utf-8")
        partial.chmod(0o755)
        partial.rename(folder)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def renamed(text: str, name: str) -> str:
    """`text` with the example's names replaced by the new package's."""
    return text.replace(EXAMPLE, name).replace(module_name(EXAMPLE), module_name(name))
