"""The manifest of a checkpoint: a checksum of every file, in the format of `sha256sum`.

`sha256sum --check manifest.sha256` verifies a checkpoint without ebft.
"""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

MANIFEST = "manifest.sha256"
OURS = (".safetensors", ".json")
"""What a checkpoint consists of; somebody's notes beside it are no damage."""
NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""What the system says where there is no file; anything else says nothing of what is there."""


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
        lines = (folder / MANIFEST).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        return f"{MANIFEST} is not text: {error}"
    except OSError as error:
        if error.errno not in NO_FILE:
            raise
        return f"it has no {MANIFEST}"
    if not lines:
        return f"{MANIFEST} is empty"
    listed = {line.partition("  ")[2] for line in lines}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix in OURS and name not in listed:
            return f"{name} is not in {MANIFEST}"
    for number, line in enumerate(lines, 1):
        checksum, two_spaces, name = line.partition("  ")
        if not (checksum and two_spaces and name) or ".." in Path(name).parts:
            return f"line {number} of {MANIFEST} is not a checksum and a file's name"
        file = folder / name
        try:
            if _checksum(file) != checksum:
                return f"{name} is not what was written ({file.stat().st_size:,} bytes are there)"
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno not in NO_FILE:
                raise
            return f"{name} is missing"
    return None


def _checksum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
