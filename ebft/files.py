"""Writing files so that they are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4


def write_whole(file: Path, text: str) -> None:
    """Replaces the file by `text`; whatever interrupts that, it holds the old text or the new."""
    # Two processes may write the same file at once: each its own partial one.
    partial = file.with_name(f".{file.name}.{uuid4().hex[:8]}.partial")
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)
