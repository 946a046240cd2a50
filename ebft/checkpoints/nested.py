"""Writes nested state without pickle: tensors to a safetensors file, the rest to a JSON file.

JSON has no tensors, tuples or numbers as keys. Each is written as an object with one special key:

    {"$tensor": "optimizer.state.0.exp_avg"}    {"$tuple": […]}    {"$items": [[key, value], …]}
    {"$divided": "0.exp_avg"}                   a sharded tensor (`checkpoints.shards`)
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
    """A placeholder for the tensor of this name, of which every process writes its own shard."""

    name: str


def write_nested(state: Any, file: Path) -> None:
    """Writes `file`.json and `file`.safetensors.

    `state` may contain dicts with keys of text or integers, lists, tuples, tensors, numbers, text,
    True, False, None and `Sharded`. Floats keep every bit. Raises `TypeError` naming a value of
    another type.
    """
    tensors: dict[str, Tensor] = {}
    structure = _pack(state, "", tensors)
    save_file(_unshared(tensors), file.with_suffix(".safetensors"))
    file.with_suffix(".json").write_text(json.dumps(structure), encoding="utf-8")


def read_nested(file: Path) -> Any:
    """Reads the state that `write_nested` wrote, with its tensors on the CPU.

    Raises `ValueError` naming the file if `write_nested` cannot have written it.
    """
    try:
        structure = parse_json(read_text(file.with_suffix(".json")))
        check_regular(file.with_suffix(".safetensors"))
        return _unpack(structure, load_file(file.with_suffix(".safetensors")))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}.json and .safetensors hold no state: {error!r}") from error


def check_nested(state: Any) -> None:
    """Raises the `TypeError` that `write_nested` would raise, without writing anything."""
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
        f"{path or 'the state'} is a {type(value).__name__}, which a checkpoint cannot hold: "
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


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, contiguous and without shared memory, as safetensors requires."""
    seen: set[int] = set()
    unshared = {}
    for name, tensor in tensors.items():
        here = tensor.to("cpu", memory_format=torch.contiguous_format).contiguous()
        storage = here.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != here.nbytes:
            here = here.clone()
        seen.add(here.untyped_storage().data_ptr())
        unshared[name] = here
    return unshared
