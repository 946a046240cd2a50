"""Tensors that are divided over processes, on disk: each process writes its own part of them.

torch.distributed.checkpoint puts them together again, for as many processes as there are then. The
files are safetensors, and where a part belongs is in their headers.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

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

from ebft.reading import check_regular


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
            # A single process reads what several wrote: as intended, whatever torch assumes.
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
            load(dict(tensors), storage_reader=reader)
    except Exception as error:  # torch's reader raises what comes of whatever it finds
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
