"""Writes weights that are divided over processes into safetensors files that transformers loads.

Each process writes its own rows to their places in the file, so no process holds more of a weight
than it had. torch's writer of such folders puts whole weights together in one process, and a small
model's embeddings are a third of a process's share.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers.core_model_loading import revert_weight_conversion

from ebft.models.rows import own_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FILES, INDEX = "model{suffix}.safetensors", "model.safetensors.index.json"
LARGEST = "50GB"
"""The size of a file, as `save_pretrained` has it; the hub takes no larger ones."""
PIECE = 2**22
"""Values that are copied to the CPU and written at a time."""
DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""What a safetensors file calls them."""


def tensors_on_disk(model: PreTrainedModel) -> dict[str, Tensor] | None:
    """Returns the model's weights by the names that `save_pretrained` gives them.

    None if it also changes what is in them (it makes a matrix for each expert of one for all),
    which takes whole weights.
    """
    once = {name for name, _ in model.named_parameters()}
    tied = {name for name, _ in model.named_parameters(remove_duplicate=False)} - once
    left_out = tied | set(model._keys_to_ignore_on_save or ())
    weights = {name: it for name, it in model.state_dict().items() if name not in left_out}
    outlines = {
        name: torch.empty(weight.shape, dtype=weight.dtype, device="meta")
        for name, weight in weights.items()
    }
    names = {id(outline): name for name, outline in outlines.items()}
    on_disk = revert_weight_conversion(model, dict(outlines))
    if sorted(map(id, on_disk.values())) != sorted(names):
        return None
    return {name: weights[names[id(outline)]] for name, outline in on_disk.items()}


def create_files(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Makes the files of these tensors, without their values, and an index if they are several."""
    split = split_files(tensors)
    for name, inside in split.items():
        layout = Layout.of(inside)
        with (folder / name).open("wb") as file:
            file.write(layout.header)
            file.truncate(layout.size)
    if len(split) > 1:
        total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        index = {
            "metadata": {
                "total_parameters": sum(tensor.numel() for tensor in tensors.values()),
                "total_size": total,
            },
            "weight_map": {name: file for file, inside in split.items() for name in inside},
        }
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / INDEX).write_text(text, encoding="utf-8")


def write_rows(tensors: Mapping[str, Tensor], folder: Path, *, is_main: bool) -> None:
    """Writes this process's rows into the files that `create_files` made. The main process writes
    tensors that are not divided.

    Raises `OSError` if the files are not there, or cannot be written.
    """
    for name, inside in split_files(tensors).items():
        layout = Layout.of(inside)
        with (folder / name).open("r+b", buffering=0) as file:
            for key, tensor in inside.items():
                values, before = _own_values(tensor, is_main=is_main)
                file.seek(layout.starts[key] + before * tensor.element_size())
                for piece in torch.split(values, PIECE):
                    _write(file.fileno(), piece)
            os.fsync(file.fileno())


class Layout(NamedTuple):
    """A safetensors file: what is before the values, where those of each tensor start, its size."""

    header: bytes
    starts: dict[str, int]
    size: int

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Layout:
        """The layout of a file with these tensors."""
        described: dict[str, object] = {"__metadata__": {"format": "pt"}}
        offsets, at = {}, 0
        # The widest first, so that each is at a multiple of its width.
        for name, tensor in sorted(tensors.items(), key=lambda it: -it[1].element_size()):
            end = at + tensor.numel() * tensor.element_size()
            described[name] = {
                "dtype": DTYPES[tensor.dtype],
                "shape": list(tensor.shape),
                "data_offsets": [at, end],
            }
            offsets[name], at = at, end
        text = json.dumps(described).encode()
        text += b" " * (-len(text) % 8)
        header = len(text).to_bytes(8, "little") + text
        starts = {name: len(header) + offset for name, offset in offsets.items()}
        return cls(header, starts, len(header) + at)


def split_files(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Returns the names of the files, and the tensors of each."""
    split = split_state_dict_into_shards_factory(
        dict(tensors),
        get_storage_size=lambda tensor: tensor.numel() * tensor.element_size(),
        filename_pattern=FILES,
        max_shard_size=LARGEST,
    )
    return {
        file: {name: tensors[name] for name in names}
        for file, names in split.filename_to_tensors.items()
    }


def _own_values(tensor: Tensor, *, is_main: bool) -> tuple[Tensor, int]:
    """Returns the values that this process writes, and how many are before them."""
    if not isinstance(tensor, DTensor):
        values = tensor.detach().reshape(-1)
        return (values if is_main else values[:0]), 0
    rows, first = own_rows(tensor)
    mesh = tensor.device_mesh
    if mesh.ndim > 1 and mesh.get_local_rank(0) > 0:
        rows = rows[:0]  # the first replica writes them
    return rows.reshape(-1), first * (tensor.numel() // max(1, tensor.shape[0]))


def _write(file: int, values: Tensor) -> None:
    left = values.cpu().contiguous().view(torch.uint8).numpy().data.cast("B")
    while left:
        left = left[os.write(file, left) :]
