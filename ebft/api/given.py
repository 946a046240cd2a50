"""What a program passes in place of a recipe's values: a model, rows, parts.

A model and rows are written to files, and the recipe names these files. So a run of objects is a
run of a recipe like any other: it can be repeated and resumed by `ebft run` on its `recipe.yaml`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import IOBase
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ebft.config.overrides import Override, override
from ebft.data.values import quoted
from ebft.errors import UserError
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
TEXTS = {"completion": "text"}
"""The columns of rows that are texts."""
SAME_COLUMNS = "give all rows the same columns"


def changes(values: Mapping[str, Any], registry: Registry, *, origin: str) -> list[Override]:
    """Returns the overrides that set dotted keys to `values`, of which some may be parts.

    A key `~key` deletes. Raises `UserError` for values that are no mapping of texts, and for one
    that a recipe cannot have.
    """
    if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
        raise UserError(
            f"overrides: is {quoted(values)}; give a dict with dotted keys, such as "
            '{"training.steps": 50}'
        )
    return [
        override(key, plain(value, registry, key=key), origin=origin)
        for key, value in values.items()
    ]


def plain(value: Any, registry: Registry, *, key: str) -> Any:
    """Returns the value as a recipe has it: parts as `{_component_: name, **options}`.

    Scalars of numpy become numbers. Raises `UserError` for a part whose class is defined inside of
    a function, and for an object that a recipe cannot have.
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
        case np.generic():
            return value.item()
        case None | bool() | int() | float() | str():
            return value
        case _:
            kind, remedy = (
                (f"the class {value.__name__}", f"pass an object of it, {value.__name__}(…)")
                if isinstance(value, type)
                else (
                    f"a {type(value).__name__}",
                    (
                        "a recipe has numbers, texts, lists and dicts, and parts, which are "
                        "objects of classes such as ebft.RewardPart"
                    ),
                )
            )
            raise UserError(f"{key}: is {kind}; {remedy}")


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


def check_model(model: Any, tokenizer: Any) -> None:
    """Raises `UserError` for a model that is neither named nor a `PreTrainedModel`, for one without
    its tokenizer, and for a tokenizer that would be ignored."""
    if model is None or isinstance(model, str | Path):
        if tokenizer is not None:
            raise UserError(
                "tokenizer: is used only with a model that is an object, and a name or folder has "
                "its own; load the model and pass both, or leave tokenizer out"
            )
        return
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    if not isinstance(model, PreTrainedModel):
        named = model.__name__ if isinstance(model, type) else f"a {type(model).__name__}"
        raise UserError(
            f"model: is {named}; give a name, a folder, or a PreTrainedModel of transformers "
            "(of an adapter: model.merge_and_unload())"
        )
    if tokenizer is None:
        raise UserError(
            f"tokenizer: missing, and model is a {type(model).__name__}; pass tokenizer=… with it, "
            "or pass the name or folder that it was loaded from as model"
        )
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise UserError(
            f"tokenizer: is a {type(tokenizer).__name__}; give the object, as "
            "AutoTokenizer.from_pretrained(…) returns it"
        )


def write_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path
) -> Path:
    """Saves a model with its tokenizer, and returns the folder.

    `check_model` says what they are.
    """
    assert tokenizer is not None
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def write_rows(rows: Any, stream: IO[bytes], *, key: str) -> dict[str, str]:
    """Writes rows as JSONL, and returns the options of the data source `files` that name the
    columns.

    `rows` are those of `checked_rows`. A row may lack the column `tools`. Raises `UserError` for
    rows of another form, and if their columns are not those that are read.
    """
    columns: dict[str, str] | None = None
    for number, row in enumerate(checked_rows(rows, key=key), 1):
        if isinstance(row, str):
            if columns not in (None, TEXTS):
                raise UserError(
                    f"{key}: row {number} is a text, and the first has "
                    f"{' and '.join(columns.values())}; {SAME_COLUMNS}"
                )
            row = {"text": row}
        if not isinstance(row, Mapping):
            raise UserError(
                f"{key}: row {number} is a {type(row).__name__}; rows are dicts or texts"
            )
        if columns is None:
            columns = columns_of(list(row), key=key)
        if row.get("tools") is not None and columns.keys() & {"messages", "prompt"}:
            columns["tools"] = "tools"
        for column in unread_columns(columns):
            if row.get(column) is not None:
                raise UserError(
                    f"{key}: row {number} has {column!r}, which the first lacks; {SAME_COLUMNS}"
                )
        needed = [column for option, column in columns.items() if option != "tools"]
        if missing := [column for column in needed if column not in row]:
            raise UserError(
                f"{key}: row {number} has no {missing[0]!r}, which the first has; {SAME_COLUMNS}"
            )
        kept = [
            f"{json.dumps(column)}: {_as_json(row[column], f'{key}: row {number}, {column}')}"
            for column in columns.values()
            if column in row
        ]
        stream.write(f"{{{', '.join(kept)}}}\n".encode())
    if columns is None:
        raise UserError(f"{key}: has no rows")
    return columns


def _as_json(value: Any, where: str) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{where}: {error}; give texts, lists and dicts") from error


def checked_rows(rows: Any, *, key: str) -> Iterable[Any]:
    """Returns rows that are a data set of `datasets`, a sequence such as a list, or an iterator.

    Raises `UserError` for other objects: a data frame or a dict yields its keys, a text its
    characters, and a file its lines. As a data set a frame keeps its empty cells empty and its
    lists lists, which `to_dict` does not.
    """
    if isinstance(rows, Sequence) and not isinstance(rows, str | bytes):
        return rows
    if isinstance(rows, Iterator) and not isinstance(rows, IOBase):
        return rows
    from datasets import Dataset, IterableDataset

    if isinstance(rows, Dataset | IterableDataset):
        found: Iterable[Any] = rows
        return found
    raise UserError(
        f"{key}: is a {type(rows).__name__}; give a datasets.Dataset, a list of dicts or a list of "
        f"texts; {_remedy(rows)}"
    )


def _remedy(rows: Any) -> str:
    if isinstance(rows, str | bytes | Path | IOBase):
        return "of a file of JSON Lines [json.loads(line) for line in open(…)]"
    if isinstance(rows, Mapping):
        return "of one row [row], of splits one of them, of columns Dataset.from_dict(…)"
    return "of a data frame Dataset.from_pandas(frame), of an array or a set list(…)"


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
        there = f"the columns {', '.join(map(repr, names))}" if names else "no columns"
        raise UserError(
            f"{key}: rows have {there}; name them prompt and completion, messages for "
            "conversations, or text for raw text"
        )
    if {"completion", "text"} <= set(names):
        raise UserError(f"{key}: rows have completion and text; leave one of them out")
    if found["completion"] == "text" and "prompt" in found:
        raise UserError(f"{key}: rows have prompt and text; name the second completion")
    if "prompt" not in found:  # raw text
        found.pop("tools", None)
    return found


def unread_columns(columns: Mapping[str, str]) -> list[str]:
    """Returns the columns that would be read if the first row had them.

    >>> unread_columns({"messages": "messages"})
    ['completion', 'check', 'text']
    """
    # Data sets of conversations often have a prompt too, and `columns_of` leaves it out.
    read = {*columns.values(), "tools", *(["prompt"] if "messages" in columns else [])}
    return [column for column in COLUMNS if column not in read]
