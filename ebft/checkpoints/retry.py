"""Reading from file systems that are away for a moment, as network file systems are."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from ebft.errors import StorageError

PAUSES = (0.5, 2.0, 5.0)
"""Seconds to wait before each further try."""
T = TypeVar("T")


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
            "so nothing has been changed, and the same command goes on once it can be read"
        ) from error
