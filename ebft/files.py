"""Writing files so that they are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from uuid import uuid4


@contextmanager
def replacing(file: Path) -> Iterator[IO[bytes]]:
    """A stream whose content replaces the file's at the end; whatever interrupts that, the file
    holds the old one or the new."""
    # Two processes may write the same file at once: each its own partial one.
    partial = file.with_name(f".{file.name}.{uuid4().hex[:8]}.partial")
    try:
        with partial.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    except BaseException:
        partial.unlink(missing_ok=True)  # on a full disk it would take the room that is left
        raise


def write_whole(file: Path, content: str | bytes) -> None:
    """Replaces the file's content, as `replacing` does."""
    with replacing(file) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


def check_writable(folder: Path) -> None:
    """Makes the folder, and a file in it that goes again. Raises `OSError` if it cannot."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".writable").touch()
    (folder / ".writable").unlink(missing_ok=True)  # two processes may do so at once
