"""Shards of an optimizer's state: each process has, and writes, its own part of large tensors.

torch.distributed.checkpoint reads the shards again, for any number of processes. The files are
safetensors, and their headers say which part of a tensor a shard is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from ebft.checkpoints.nested import Sharded
from ebft.files import check_regular

if TYPE_CHECKING:
    from ebft.training.parts import LoopParts

SHARED = "output_dir must be on a file system that all processes share"


# torch's get_optimizer_state_dict is not used: to create state it calls the optimizer's `step` with
# a learning rate of 0, which some optimizers do not support and others do not treat as a no-op.
def extract_shards(
    state: Mapping[str, Any], loop: LoopParts
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Replaces the sharded tensors in the state of one process by `Sharded`.

    Returns the new state and the sharded tensors by name. These are the optimizer's tensors that
    are sharded like the weights.
    """
    from ebft.models.shard import is_like, unsharded

    shards: dict[str, Tensor] = {}
    parameters = parameters_of(loop)

    def extract(number: int, key: str, value: Any) -> Any:
        if not is_like(parameters[number], value):
            return unsharded(value)
        shards[name := f"{number}.{key}"] = value
        return Sharded(name)

    optimizer = _map_state(state["optimizer"], extract)
    return {**unsharded({**state, "optimizer": None}), "optimizer": optimizer}, shards


def insert_shards(optimizer: Mapping[str, Any], loop: LoopParts, shards: Path) -> Mapping[str, Any]:
    """An optimizer's state with its tensors sharded over the current processes like the weights.

    Raises `ValueError` if the folder `shards` lacks a tensor that is `Sharded` in the state.
    """
    parameters = parameters_of(loop)
    sharded = {
        value.name: parameters[number]
        for number, values in optimizer["state"].items()
        for value in values.values()
        if isinstance(value, Sharded)
    }
    if not sharded and loop.processes.size == 1:
        return optimizer
    from ebft.models.shard import sharded_like

    read = read_shards(shards, like=sharded) if sharded else {}

    def insert(number: int, _key: str, value: Any) -> Any:
        if isinstance(value, Sharded):
            return read[value.name]
        return sharded_like(parameters[number], value)

    return _map_state(optimizer, insert)


def parameters_of(loop: LoopParts) -> dict[int, Tensor]:
    """The optimizer's parameters by their numbers in its state."""
    return dict(enumerate(p for group in loop.optimizer.param_groups for p in group["params"]))


def _map_state(
    optimizer: Mapping[str, Any], change: Callable[[int, str, Any], Any]
) -> dict[str, Any]:
    """The optimizer's state with `change(number, key, value)` in place of each value."""
    changed = {
        number: {key: change(number, key, value) for key, value in values.items()}
        for number, values in optimizer["state"].items()
    }
    return {**optimizer, "state": changed}


def write_shards(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Writes this process's part of each tensor. Every process must call it.

    Raises `OSError` in every process if one of them cannot write its part.
    """
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    with _plain_errors():
        save(dict(tensors), storage_writer=writer)


def check_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises `OSError` unless the folder has every part of each tensor."""
    written = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    for name, tensor in tensors.items():
        found = written.get(name)
        chunks = found.chunks if isinstance(found, TensorStorageMetadata) else []
        if sum(chunk.sizes.numel() for chunk in chunks) != tensor.numel():
            raise OSError(f"{folder} lacks the shards of other processes: {SHARED}")


def read_shards(folder: Path, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Reads tensors by name, sharded like those of `like`, with the dtype that was written.

    Every process must call it. Raises `ValueError` if the folder lacks a tensor, or if its shape
    is not that of `like`.
    """
    try:
        for file in folder.glob("*.safetensors"):
            check_regular(file)
            with safe_open(file, "pt"):  # checks the header, which torch's reader does not
                pass
        reader = HuggingFaceStorageReader(str(folder))
        written = reader.read_metadata().state_dict_metadata
        tensors = {}
        for name, tensor in like.items():
            found = written.get(name)
            if not isinstance(found, TensorStorageMetadata) or found.size != tensor.shape:
                raise ValueError(f"{folder} has no {name} of shape {tuple(tensor.shape)}")
            tensors[name] = torch.empty_like(tensor, dtype=found.properties.dtype)
        with _plain_errors(), warnings.catch_warnings():
            # One process may read the shards of several, so torch's warning does not apply.
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
            load(dict(tensors), storage_reader=reader)
    except Exception as error:  # damaged bytes make torch's reader raise any type
        raise ValueError(f"{folder} holds no tensors: {error!r}") from error
    return tensors


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Raises the failure of one process, instead of all failures with their tracebacks as text."""
    try:
        yield
    except CheckpointException as error:
        rank, (failure, _) = next(iter(error.failures.items()))
        raise OSError(f"process {rank}: {failure}") from error
