"""An optimizer's state in several processes: each has, and writes, its own shard of large tensors.

torch.distributed.checkpoint puts them together again, for as many processes as there are then. The
files are safetensors, and where a shard belongs is in their headers.
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


# torch's get_optimizer_state_dict is not used: to create state it calls the optimizer's `step` with
# a learning rate of 0, which some optimizers do not support and others do not treat as a no-op.
def set_apart(
    state: Mapping[str, Any], loop: LoopParts
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The state of one of several processes, with `Sharded` for what each has its own part of.

    Those are the optimizer's tensors that are divided as the weights are; they come by their names.
    """
    from ebft.models.shard import is_like, unsharded

    apart: dict[str, Tensor] = {}
    parameters = parameters_of(loop)

    def taken(number: int, key: str, value: Any) -> Any:
        if not is_like(parameters[number], value):
            return unsharded(value)
        apart[name := f"{number}.{key}"] = value
        return Sharded(name)

    optimizer = _with_each(state["optimizer"], taken)
    return {**unsharded({**state, "optimizer": None}), "optimizer": optimizer}, apart


def put_back(optimizer: Mapping[str, Any], loop: LoopParts, shards: Path) -> Mapping[str, Any]:
    """An optimizer's state with its tensors divided over the present processes as the weights are.

    Raises `ValueError` if what is `Sharded` in it is not in `shards`.
    """
    parameters = parameters_of(loop)
    apart = {
        value.name: parameters[number]
        for number, values in optimizer["state"].items()
        for value in values.values()
        if isinstance(value, Sharded)
    }
    if not apart and loop.processes.size == 1:
        return optimizer
    from ebft.models.shard import sharded_like

    read = read_shards(shards, like=apart) if apart else {}

    def placed(number: int, _key: str, value: Any) -> Any:
        if isinstance(value, Sharded):
            return read[value.name]
        return sharded_like(parameters[number], value)

    return _with_each(optimizer, placed)


def parameters_of(loop: LoopParts) -> dict[int, Tensor]:
    """The optimizer's parameters by the numbers that its state has for them."""
    return dict(enumerate(p for group in loop.optimizer.param_groups for p in group["params"]))


def _with_each(
    optimizer: Mapping[str, Any], change: Callable[[int, str, Any], Any]
) -> dict[str, Any]:
    """The optimizer's state with `change(number, key, value)` for every value of a parameter."""
    changed = {
        number: {key: change(number, key, value) for key, value in values.items()}
        for number, values in optimizer["state"].items()
    }
    return {**optimizer, "state": changed}


def write_shards(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Writes this process's part of each tensor; all processes do it at once.

    Raises `OSError` in all of them if one cannot write its part.
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
            raise OSError(
                f"{folder} lacks what other processes have written: output_dir must be on a file "
                "system that all of them share"
            )


def read_shards(folder: Path, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of these names, divided as those of `like` are; of the type that was written.

    All processes do it at once. Raises `ValueError` if the folder has not all of them, in the shape
    that those of `like` have.
    """
    try:
        for file in folder.glob("*.safetensors"):
            check_regular(file)
            with safe_open(file, "pt"):  # it checks the header, which torch's reader trusts
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
            # One process may read what several wrote, so torch's warning does not apply.
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
            load(dict(tensors), storage_reader=reader)
    except Exception as error:  # damaged bytes make torch's reader raise any type
        raise ValueError(f"{folder} holds no tensors: {error!r}") from error
    return tensors


@contextmanager
def _plain_errors() -> Iterator[None]:
    """The first process's failure, in place of all of them with their tracebacks as text."""
    try:
        yield
    except CheckpointException as error:
        rank, (failure, _) = next(iter(error.failures.items()))
        raise OSError(f"process {rank}: {failure}") from error
