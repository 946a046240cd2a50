"""`ebft new-plugin`: creates a package with a feature map, its test and its recipe."""

from __future__ import annotations

import argparse
import keyword
import re
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from ebft.console import say
from ebft.errors import UserError
from ebft.parts.version import PACKAGE

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
        help="create a package with a feature map, as a start for your own",
        description="Creates an installable package in a new folder NAME: a feature map, its "
        "test, and a recipe that trains with it.",
        epilog=EPILOG,
    )
    parser.add_argument("name", metavar="NAME", help="the folder and the package, e.g. my-features")
    parser.set_defaults(command=new_plugin)


def new_plugin(arguments: argparse.Namespace) -> int:
    """Creates the package. Raises `UserError` for a name that cannot be used, or a folder that
    exists or cannot be written."""
    name: str = arguments.name
    folder = Path(name)
    check_name(name)
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder} already exists; give another name, or remove it")
    check_module(module_name(name))
    write_plugin(name, folder)
    say(f"{folder}/: next, cd {folder} && pytest")
    return 0


def check_name(name: str) -> None:
    """Raises `UserError` unless it can be the name of a package and, with _ for -, of a module."""
    if not NAME.fullmatch(name):
        raise UserError(
            f"{name!r} cannot name a package: give lower-case letters and digits, starting with a "
            "letter, with - or _ between words, e.g. my-features"
        )


def check_module(module: str) -> None:
    """Raises `UserError` for a name that cannot be imported, or would hide another module."""
    if keyword.iskeyword(module) or module in sys.stdlib_module_names:
        raise UserError(f"{module!r} is reserved by Python; give another name, e.g. my-{module}")
    if find_spec(module) is not None:
        raise UserError(f"a package called {module!r} is already installed; give another name")


def module_name(name: str) -> str:
    """The module of a package: my-features → my_features."""
    return name.replace("-", "_")


def example_folder() -> Path:
    """The example package: inside ebft if it was installed from a wheel, or in the checkout."""
    built = PACKAGE / "_example"
    return built if built.is_dir() else PACKAGE.parent / "plugins" / EXAMPLE


def write_plugin(name: str, folder: Path) -> None:
    """Copies the example under another name. `folder` is created atomically.

    Raises `UserError` if it cannot be written.
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
