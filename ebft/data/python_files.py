"""Data source `python_files`: raw code, by default the running interpreter's standard library."""

from __future__ import annotations

import logging
import os
import sysconfig
from importlib.util import find_spec
from pathlib import Path

from pydantic import Field

from ebft.data.copies import without_near_copies
from ebft.data.split import split, without_copies
from ebft.data.values import safe_name
from ebft.errors import UserError
from ebft.parts.part import Part
from ebft.parts.splits import Example, Splits

SKIPPED = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "pydoc_data"}
)
"""Folders of the standard library and of installed packages that are skipped: other packages, test
suites, and data tables in the form of code."""

log = logging.getLogger("ebft")


class PythonFiles(Part):
    """Every .py file under a folder is one text (the paper's unstructured code).

    Whole files are held out, so a file is never partly in train and partly held out. Files that
    share most of their lines with a held-out file are not trained on.
    """

    path: Path | None = Field(None, description="a folder; null: the standard library's sources")
    held_out: float = Field(0.1, gt=0, lt=1, description="fraction of the files to hold out")
    out_of_distribution: tuple[str, ...] = Field(
        (),
        description="packages never trained on: folders or .py files directly under `path`, else "
        "installed packages by import name",
    )

    def __call__(self) -> Splits:
        """Raises `UserError` naming the key if there is nothing to read."""
        root = self.path if self.path is not None else Path(sysconfig.get_path("stdlib"))
        if os.path.isfile(root):
            raise UserError(
                f"data.path = {root}: is a file, and this reads a folder of .py files; for rows of "
                "JSONL, JSON, Parquet or CSV set data=files"
            )
        if not os.path.isdir(root):
            raise UserError(f"data.path = {root}: no such folder; give one that has .py files")
        examples = read_sources(root, skipped=SKIPPED if self.path is None else frozenset())
        if not examples:
            raise UserError(f"data.path = {root}: no .py file with text in it; give another folder")
        apart: list[Example] = []
        for package in self.out_of_distribution:
            own = [example for example in examples if is_in_package(example, package)]
            examples = [example for example in examples if not is_in_package(example, package)]
            apart += own or read_installed(package, root)
        splits = split(examples, self.held_out, key=f"data.path = {root}")
        return Splits(
            train=without_near_copies(splits.train, of=[*splits.held_out, *apart]),
            held_out=splits.held_out,
            out_of_distribution=without_copies(apart, of=splits.held_out),
        )


def read_sources(root: Path, *, skipped: frozenset[str], prefix: str = "") -> list[Example]:
    """Returns every .py file under `root` with text in it, named by its relative path."""
    examples, unreadable = [], []
    for file in sorted(root.rglob("*.py")):
        name = file.relative_to(root)
        if skipped.intersection(name.parts):
            continue
        try:
            if not file.is_file():
                raise OSError("not a regular file")  # a pipe or a device may never end
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError):
            unreadable.append(safe_name(name))
            continue
        if text.strip():
            examples.append(Example(prefix + safe_name(name), text))
    if unreadable:
        log.warning("%d files cannot be read as UTF-8, e.g. %s", len(unreadable), unreadable[0])
    return examples


def is_in_package(example: Example, package: str) -> bool:
    """Whether a file belongs to a package or module directly under the sources' folder."""
    return example.name == f"{package}.py" or example.name.startswith(f"{package}/")


def read_installed(package: str, root: Path) -> list[Example]:
    """Returns the sources of an installed package. Raises `UserError` if there are none."""
    examples = [
        example
        for folder in package_folders(package)
        for example in read_sources(folder, skipped=SKIPPED, prefix=f"{package}/")
    ]
    if not examples:
        raise UserError(
            f"data.out_of_distribution: {package}: neither a package under {root} nor an installed "
            "one that has .py files"
        )
    return examples


def package_folders(package: str) -> list[Path]:
    """Returns the folders of an installed package or subpackage; empty if it has none.

    Nothing is imported: subpackages are looked up in the package's folder.
    """
    top, *inner = package.split(".")
    try:
        spec = find_spec(top) if package.replace(".", "_").isidentifier() else None
    except ValueError:  # a module without a spec, such as __main__
        spec = None
    places = () if spec is None else spec.submodule_search_locations or ()
    return [folder for place in places if (folder := Path(place, *inner)).is_dir()]
