"""Whether a checkpoint is whole: a manifest has the checksum of every file, as `sha256sum` has it.

`sha256sum --check manifest.sha256` verifies a checkpoint without ebft. A damaged checkpoint is
skipped. One that cannot be read is not damaged: network file systems are away for a moment, so
reading is tried again, and then refused.
"""

from __future__ import annotations

import errno
import hashlib
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

from ebft.errors import StorageError
from ebft.files import check_regular, read_text

PAUSES = (0.5, 2.0, 5.0)
"""Seconds to wait before each further try."""
T = TypeVar("T")
MANIFEST = "manifest.sha256"
LINE = re.compile(r"(?P<checksum>[0-9a-f]{64})  (?P<name>[^\0]+)")
OURS = (".safetensors", ".json")
"""What a checkpoint consists of; somebody's notes beside it are no damage."""
NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""What the system says where there is no file; anything else says nothing of what is there."""


def with_retries(read: Callable[[], T]) -> T:
    """What `read` returns, tried again after each `OSError`. Raises `StorageError` in the end."""
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
            "so nothing has been changed; run the same command again once it can be read"
        ) from error


def write_manifest(folder: Path) -> None:
    """Lists every file below `folder` with its checksum."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{_checksum(file)}  {file.relative_to(folder).as_posix()}\n" for file in files]
    (folder / MANIFEST).write_text("".join(lines), encoding="utf-8")


def find_damage(folder: Path) -> str | None:
    """What is wrong with the files of a checkpoint; None if they are those that were written.

    Raises `OSError` if they cannot be read, which is not to say that they are damaged.
    """
    try:
        listed = _parsed(read_text(folder / MANIFEST))
    except ValueError as error:
        return f"{MANIFEST}: {error}"
    except OSError as error:
        if error.errno not in NO_FILE:
            raise
        return f"it has no {MANIFEST}"
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix in OURS and name not in listed:
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


def damage_of(folder: Path) -> str | None:
    """What is damaged in a checkpoint; None if its files are those that were written.

    Raises `StorageError` if they cannot be read.
    """
    return with_retries(partial(find_damage, folder))


def _parsed(text: str) -> dict[str, str]:
    """The checksum of each file, by its path within the checkpoint.

    Raises `ValueError` for a manifest of no files, and naming a line that is not one of it or names
    a file that is elsewhere.
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
