"""Nested state on disk: its tensors in a safetensors file, the rest in a JSON file. No pickle.

JSON has no tensors, tuples or keys that are numbers. They are objects with one key of our own:

    {"$tensor": "optimizer.state.0.exp_avg"}    {"$tuple": […]}    {"$items": [[key, value], …]}
    {"$divided": "0.exp_avg"}                   a tensor that is elsewhere (`checkpoints.shards`)
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import Parameter

from ebft.files import check_regular, parse_json, read_text

TENSOR, TUPLE, ITEMS, SHARDED = "$tensor", "$tuple", "$items", "$divided"


@dataclass(frozen=True, slots=True)
class Sharded:
    """In place of a tensor of this name, of which every process writes its own part."""

    name: str


def write_nested(state: Any, file: Path) -> None:
    """Writes `file`.json and `file`.safetensors.

    `state` is made of dicts (keys: text or whole numbers), lists, tuples, tensors, numbers, text,
    True, False, None and `Sharded`; raises `TypeError` naming what else is in it. Floats keep every
    bit.
    """
    tensors: dict[str, Tensor] = {}
    structure = _pack(state, "", tensors)
    save_file(_apart(tensors), file.with_suffix(".safetensors"))
    file.with_suffix(".json").write_text(json.dumps(structure), encoding="utf-8")


def read_nested(file: Path) -> Any:
    """What `write_nested` was given, its tensors on the CPU.

    Raises `ValueError` naming the file if it is not what `write_nested` writes.
    """
    try:
        structure = parse_json(read_text(file.with_suffix(".json")))
        check_regular(file.with_suffix(".safetensors"))
        return _unpack(structure, load_file(file.with_suffix(".safetensors")))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}.json and .safetensors hold no state: {error!r}") from error


def check_nested(state: Any) -> None:
    """Raises the `TypeError` that `write_nested` would, without writing anything."""
    _pack(state, "", {})


def _pack(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    def below(key: Any) -> str:
        return f"{path}.{key}" if path else str(key)

    match value:
        case Tensor() if type(value) in (Tensor, Parameter):
            while path in tensors:  # keys with dots in them can make equal paths
                path += "'"
            tensors[path] = value.detach()
            return {TENSOR: path}
        case Sharded(name):
            return {SHARDED: name}
        case None | bool() | int() | float() | str():
            return value
        case tuple() | list():
            items = [_pack(item, below(i), tensors) for i, item in enumerate(value)]
            return {TUPLE: items} if isinstance(value, tuple) else items
        case dict() if all(isinstance(key, str) and key[:1] != "$" for key in value):
            return {key: _pack(item, below(key), tensors) for key, item in value.items()}
        case dict() if all(type(key) in (str, int) for key in value):
            return {ITEMS: [[key, _pack(v, below(key), tensors)] for key, v in value.items()]}
    raise TypeError(
        f"{path or 'the state'} is a {type(value).__name__}, which a checkpoint does not hold: "
        "give plain tensors, numbers, text, lists, tuples, or dicts with keys of text or integers"
    )


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    match value:
        case {"$tensor": name}:
            return tensors[name]
        case {"$divided": str(name)}:
            return Sharded(name)
        case {"$tuple": items}:
            return tuple(_unpack(item, tensors) for item in items)
        case {"$items": items}:
            return {key: _unpack(item, tensors) for key, item in items}
        case dict():
            return {key: _unpack(item, tensors) for key, item in value.items()}
        case list():
            return [_unpack(item, tensors) for item in value]
    return value


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, contiguous, none sharing memory with another: safetensors asks."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        here = tensor.to("cpu", memory_format=torch.contiguous_format).contiguous()
        storage = here.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != here.nbytes:
            here = here.clone()
        seen.add(here.untyped_storage().data_ptr())
        apart[name] = here
    return apart
