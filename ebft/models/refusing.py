"""What transformers, peft and safetensors raise for files that they cannot load, as one line.

There is no fixed set of it. So `refusing` is put around a call of theirs alone: an error of ebft
inside it would lose its traceback.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import safe_open

from ebft.errors import UserError, first_line, is_out_of_memory

LFS = b"version https://git-lfs.github.com/spec/"
"""How the file begins that Git LFS leaves in place of one that it has not fetched."""
FILES = ("*.safetensors", "*.json", "*.model")
"""The files of a model that are looked at for the cause."""
LONGEST = 300
"""Characters of what another library says."""
PLAIN = (OSError, ValueError, RuntimeError, ImportError)
"""Errors whose message says enough without their name."""


@contextmanager
def refusing(says: str, remedy: str, *, folder: str | Path) -> Iterator[None]:
    """Turns any error but a lack of memory into a `UserError`: `says (the likely cause); remedy`.

    `folder` holds the files; a hub id has none to look at.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or is_out_of_memory(error):
            raise
        raise UserError(f"{says} ({_cause(error, Path(folder))}); {remedy}") from error


def _cause(error: Exception, folder: Path) -> str:
    for pattern in FILES:
        for file in sorted(folder.glob(pattern)):
            if (damage := _damage(file)) is not None:
                return f"{file.name} {damage}"
    said = first_line(error)
    return (said if isinstance(error, PLAIN) else f"{type(error).__name__}: {said}")[:LONGEST]


def _damage(file: Path) -> str | None:
    """What is wrong with a file by itself, whatever the model; None if nothing is."""
    try:
        with file.open("rb") as opened:
            start = opened.read(len(LFS))
        if not start:
            return "is empty"
        if start == LFS:
            return "is a pointer of Git LFS and not the file: run `git lfs pull` in its folder"
        if file.suffix == ".json":
            json.loads(file.read_bytes())
        if file.suffix == ".safetensors":
            with safe_open(file, "pt"):
                pass
    except Exception as error:  # as there is no fixed set of those of damaged files
        return f"is damaged or cut off: {first_line(error)}"[:LONGEST]
    return None
