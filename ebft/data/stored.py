"""A cache of the texts of a file's rows: a memory-mapped file, named by a hash of the content."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b, file_digest
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from filelock import FileLock

from ebft.console import Bar
from ebft.data.formats import format_of, read_texts
from ebft.data.messages import MESSAGES
from ebft.data.values import safe_name
from ebft.errors import UserError, first_line
from ebft.files import replacing

if TYPE_CHECKING:
    import datasets

VERSION = 2
"""The version of the cache: a new one makes every file be read again."""
ROWS, CHARACTERS = 1000, 2**22
"""Largest numbers of rows and, approximately, of characters in a batch."""


def stored_texts(path: Path, key: str, columns: Mapping[str, str]) -> datasets.Dataset:
    """Returns the texts of a file's rows, in columns named after the options and `messages`.

    They are read once for each content of the file, with any name or time, and kept in a folder of
    the cache of `datasets`, which may be deleted. Raises `UserError` naming `key` for a file that
    cannot be read or has no rows, and for a cache that cannot be written.
    """
    import datasets

    content = _digest(path, key)
    said = f"{VERSION}\n{format_of(path)}{path.suffix}\n{sorted(columns.items())!r}\n{content}"
    name = blake2b(said.encode(), digest_size=16).hexdigest()
    file = Path(datasets.config.HF_DATASETS_CACHE) / "ebft" / f"{name}.arrow"
    try:
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{file}.lock"):
                if not file.exists():
                    _store(path, key, columns, file, content)
    except OSError as error:
        raise UserError(
            f"{file.parent}: cannot be written ({error.strerror}), and the texts of {key} are kept "
            "there; set the environment variable HF_DATASETS_CACHE to a folder that can be"
        ) from error
    try:
        return datasets.Dataset.from_file(str(file))
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{file}: is damaged, and holds the texts of {key}; delete it, and start again"
        ) from error


def _store(path: Path, key: str, columns: Mapping[str, str], file: Path, content: str) -> None:
    texts = read_texts(path, key, columns)
    first = next(texts, None)
    if first is None:
        raise UserError(f"{key} = {path}: the file has no rows")
    names = [*columns, *({MESSAGES} - columns.keys())]
    schema = pa.schema([(name, pa.large_string()) for name in names])
    with replacing(file) as stream:
        with pa.ipc.new_stream(stream, schema) as writer:
            for batch in _batches(chain([first], texts), safe_name(path.name)):
                writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
        if _digest(path, key) != content:
            raise UserError(f"{key} = {path}: was changed while it was read; start again")


def _batches(texts: Iterator[dict[str, str]], name: str) -> Iterator[list[dict[str, str]]]:
    batch: list[dict[str, str]] = []
    characters = 0
    bar = Bar(texts, desc=f"reading {name}", unit="row", delay=2, leave=False, disable=None)
    for row in bar:
        batch.append(row)
        characters += sum(map(len, row.values()))
        if len(batch) == ROWS or characters >= CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _digest(path: Path, key: str) -> str:
    try:
        with path.open("rb") as file:
            return file_digest(file, "blake2b").hexdigest()
    except OSError as error:
        raise UserError(f"{key} = {path}: cannot be read: {first_line(error)}") from error
