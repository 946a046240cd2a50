"""What a program passes in place of a recipe's values: a model, rows, parts.

A model and rows are written to files, and the recipe names these files. So a run of objects is a
run of a recipe like any other: it can be repeated and resumed by `ebft run` on its `recipe.yaml`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebft.config.overrides import Override, override
from ebft.errors import UserError
from ebft.files import replacing
from ebft.options import Options
from ebft.parts.part import Part

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ebft.parts.registry import Registry

COLUMNS = {
    "prompt": "prompt",
    "completion": "completion",
    "messages": "messages",
    "tools": "tools",
    "check": "check",
    "text": "completion",
}
"""The options of the data source `files` by the names of the columns that are read."""


def changes(values: Mapping[str, Any], registry: Registry, *, origin: str) -> list[Override]:
    """Returns the overrides that set dotted keys to `values`, of which some may be parts.

    A key `~key` deletes. Raises `UserError` for a part that a recipe cannot name.
    """
    return [
        override(key, plain(value, registry, key=key), origin=origin)
        for key, value in values.items()
    ]


def plain(value: Any, registry: Registry, *, key: str) -> Any:
    """Returns the value as a recipe has it: parts as `{_component_: name, **options}`.

    Raises `UserError` for a part whose class is defined inside of a function.
    """
    match value:
        case Options():
            named = {
                name: plain(getattr(value, name), registry, key=f"{key}.{name}")
                for name in type(value).model_fields
            }
            return (
                {"_component_": name_of(value, registry, key), **named}
                if isinstance(value, Part)
                else named
            )
        case Mapping():
            return {
                name: plain(item, registry, key=f"{key}.{name}") for name, item in value.items()
            }
        case list() | tuple():
            return [plain(item, registry, key=f"{key}.{i}") for i, item in enumerate(value)]
        case Path():
            return str(value)
        case _:
            return value


def name_of(part: Part, registry: Registry, key: str) -> str:
    """Returns the `_component_` of a part. Raises `UserError` if its class has no importable
    name."""
    name = registry.name_of(type(part))
    if "<locals>" in name:
        raise UserError(
            f"{key}: {type(part).__qualname__} is defined inside of a function, so a recipe cannot "
            "name it; define the class at the top level of a module or of a notebook"
        )
    return name


def modules_of(values: Iterable[Any]) -> set[str]:
    """Returns the modules that define the classes of parts among the values, at any depth."""
    found: set[str] = set()
    for value in values:
        match value:
            case Options():
                if isinstance(value, Part):
                    found.add(type(value).__module__)
                found |= modules_of(getattr(value, name) for name in type(value).model_fields)
            case Mapping():
                found |= modules_of(value.values())
            case list() | tuple():
                found |= modules_of(value)
    return found


def write_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path
) -> Path:
    """Saves a model with its tokenizer, and returns the folder.

    Raises `UserError` without a tokenizer.
    """
    if tokenizer is None:
        raise UserError(
            f"tokenizer: missing, and model is a {type(model).__name__}; pass tokenizer=… with it, "
            "or pass the name or folder that it was loaded from as model"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def write_rows(rows: Any, file: Path, *, key: str) -> dict[str, str]:
    """Writes rows as JSONL, and returns the options of the data source `files` that name the
    columns.

    `rows` is a `datasets.Dataset`, a sequence of mappings, or a sequence of texts. Raises
    `UserError` for rows of another form, and if their columns are not those that are read.
    """
    if isinstance(rows, str | Path | bytes | Mapping) or not isinstance(rows, Iterable):
        raise UserError(
            f"{key}: is a {type(rows).__name__}; give a datasets.Dataset, a list of dicts or a "
            'list of texts; for a file pass overrides={"data": "files", "data.path": …}'
        )
    columns: dict[str, str] | None = None
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as stream:
        for number, row in enumerate(rows, 1):
            if isinstance(row, str):
                row = {"text": row}
            if not isinstance(row, Mapping):
                raise UserError(
                    f"{key}: row {number} is a {type(row).__name__}; rows are dicts or texts"
                )
            if columns is None:
                columns = columns_of(list(row), key=key)
            if missing := [column for column in columns.values() if column not in row]:
                raise UserError(f"{key}: row {number} has no {missing[0]!r}, which the first has")
            kept = {column: row[column] for column in columns.values()}
            try:
                line = json.dumps(kept)
            except TypeError as error:
                raise UserError(f"{key}: row {number}: {error}; texts are needed") from error
            stream.write(f"{line}\n".encode())
    if columns is None:
        raise UserError(f"{key}: has no rows")
    return columns


def columns_of(names: Sequence[str], *, key: str) -> dict[str, str]:
    """Returns the column that each option of the data source `files` reads.

    >>> columns_of(["id", "prompt", "completion"], key="data")
    {'prompt': 'prompt', 'completion': 'completion'}
    >>> columns_of(["text"], key="data")
    {'completion': 'text'}
    >>> columns_of(["prompt", "prompt_id", "messages"], key="data")
    {'messages': 'messages'}
    """
    found = {COLUMNS[name]: name for name in COLUMNS if name in names}
    if "messages" in found:
        if "completion" in found:
            raise UserError(
                f"{key}: rows have messages and {found['completion']}; leave one of them out"
            )
        return {option: name for option, name in found.items() if option != "prompt"}
    if "completion" not in found:
        raise UserError(
            f"{key}: rows have the columns {', '.join(map(repr, names))}; name them prompt and "
            "completion, messages for conversations, or text for raw text"
        )
    if found["completion"] == "text" and "prompt" in found:
        raise UserError(f"{key}: rows have prompt and text; name the second completion")
    if "prompt" not in found:  # raw text
        found.pop("tools", None)
    return found
