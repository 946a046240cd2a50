"""The manifest of a checkpoint: a checksum of every file, in the format of `sha256sum`.

`sha256sum --check manifest.sha256` verifies a checkpoint without ebft. A damaged checkpoint is
skipped. One that cannot be read need not be damaged, because network file systems can be
unreachable for a moment: reading is retried, and then the run ends with an error.
"""

from __future__ import annotations

import errno
import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TypeVar

from ebft.errors import StorageError
from ebft.files import check_regular, read_text

PAUSES = (0.5, 2.0, 5.0)
"""Seconds to wait before each retry."""
T = TypeVar("T")
MANIFEST = "manifest.sha256"
LINE = re.compile(r"(?P<checksum>[0-9a-f]{64})  (?P<name>[^\0]+)")
LISTED = (".safetensors", ".json")
"""Suffixes of the files that the manifest must list; a user may add others, such as notes."""
NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""Error numbers that mean that there is no file; after any other the file may exist."""


def with_retries(read: Callable[[], T]) -> T:
    """Returns `read()`, retried after each `OSError`. Raises `StorageError` if all retries fail."""
    for pause in PAUSES:
        try:
            return read()
        except OSError:
            time.sleep(pause)
    try:
        return read()
    except OSError as error:
        raise StorageError(
            f"cannot read {error.filename or 'a checkpoint'}: {error.strerror}; it may be whole, "
            "so nothing was changed; run the same command again when it can be read"
        ) from error


def write_manifest(folder: Path) -> None:
    """Writes the manifest, with every file below `folder` and its checksum."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{_checksum(file)}  {file.relative_to(folder).as_posix()}\n" for file in files]
    (folder / MANIFEST).write_text("".join(lines), encoding="utf-8")


def find_damage(folder: Path) -> str | None:
    """Describes the damage of a checkpoint; None if its files are as they were written.

    Raises `OSError` if they cannot be read, which does not mean that they are damaged.
    """
    try:
        listed = _parse(read_text(folder / MANIFEST))
    except ValueError as error:
        return f"{MANIFEST}: {error}"
    except OSError as error:
        if error.errno not in NO_FILE:
            raise
        return f"it has no {MANIFEST}"
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix in LISTED and name not in listed:
            return f"{name} is not in {MANIFEST}"
    for name, checksum in listed.items():
        file = folder / name
        try:
            if _checksum(file) != checksum:
                return f"{name} is not what was written ({file.stat().st_size:,} bytes are there)"
        except ValueError as error:
            return f"{name}: {error}"
        except OSError as error:
            if error.errno not in NO_FILE:
                raise
            return f"{name} is missing"
    return None


def _parse(text: str) -> dict[str, str]:
    """The checksum of each file, by its path within the checkpoint.

    Raises `ValueError` for an empty manifest, and naming the line that is malformed or names a file
    outside the checkpoint.
    """
    listed = {}
    for number, line in enumerate(text.splitlines(), 1):
        found = LINE.fullmatch(line)
        if found is None:
            raise ValueError(f"line {number} is not a checksum and a file's name")
        path = PurePosixPath(name := found["name"])
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"line {number} names {name}, which is not in the checkpoint")
        listed[name] = found["checksum"]
    if not listed:
        raise ValueError("it is empty")
    return listed


def _checksum(file: Path) -> str:
    check_regular(file)
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
