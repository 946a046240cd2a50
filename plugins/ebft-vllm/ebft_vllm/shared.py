"""Weights in shared memory, which another process on the same machine maps.

The memory is anonymous (`memfd`): it is not limited by the size of /dev/shm, which is often small
in containers, and it is freed when the process that made it ends for any reason.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

ALIGNMENT = 64
"""Bytes; every tensor starts at a multiple, for fast kernels."""
Outline = list[tuple[str, str, list[int]]]
"""The name, dtype and shape of each weight."""
Layout = list[dict[str, Any]]
"""The name, dtype, shape and offset (bytes) of each weight."""


def outline_of(weights: Mapping[str, Tensor], dtype: torch.dtype) -> Outline:
    """Returns the outline of weights in an engine, where floats have `dtype`."""
    return [
        (
            name,
            str(dtype if tensor.is_floating_point() else tensor.dtype).removeprefix("torch."),
            list(tensor.shape),
        )
        for name, tensor in weights.items()
    ]


def gathered(weight: Tensor) -> Tensor:
    """Returns the whole weight. All processes that a weight is divided over must call it."""
    return weight.full_tensor() if isinstance(weight, DTensor) else weight


class SharedWeights:
    """A block of memory for weights, with the same layout at every sync."""

    def __init__(self, outline: Outline) -> None:
        self.outline = outline
        self.layout: Layout = []
        size = 0
        for name, dtype, shape in outline:
            self.layout.append({"name": name, "dtype": dtype, "shape": shape, "offset": size})
            count = torch.Size(shape).numel() * getattr(torch, dtype).itemsize
            size += -(-count // ALIGNMENT) * ALIGNMENT
        self._file = os.memfd_create("ebft-weights")
        os.ftruncate(self._file, size)
        self._memory = mmap.mmap(self._file, size)
        self.path = f"/proc/{os.getpid()}/fd/{self._file}"
        self._views = dict(_views(self._memory, self.layout))

    def write(self, weights: Mapping[str, Tensor]) -> None:
        """Copies weights in, cast to the engine's dtype. Raises `ValueError` for other names."""
        if weights.keys() != self._views.keys():
            names = sorted(weights.keys() ^ self._views.keys())
            raise ValueError(f"the policy's weights have changed their names: {names[:3]}")
        for name, view in self._views.items():
            view.copy_(gathered(weights[name]))

    def buffers(self) -> Iterator[memoryview]:
        """Yields the bytes of each weight, to be written to, in the layout's order."""
        for view in self._views.values():
            yield bytes_of(view)

    def close(self) -> None:
        """Frees the memory, as soon as no tensor views it."""
        self._views.clear()
        del self._memory
        os.close(self._file)


def bytes_of(tensor: Tensor) -> memoryview:
    """Returns the bytes of a contiguous tensor on the CPU, which share its memory."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


@contextmanager
def open_weights(path: str, layout: Layout) -> Iterator[dict[str, Tensor]]:
    """Maps the weights of the `SharedWeights` at `path`; the tensors are views, not copies."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        memory = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)
    # The map is not closed here: it is freed with the last tensor that views it.
    yield dict(_views(memory, layout))


def _views(memory: mmap.mmap, layout: Layout) -> Iterator[tuple[str, Tensor]]:
    for entry in layout:
        shape, dtype = entry["shape"], getattr(torch, entry["dtype"])
        count = torch.Size(shape).numel()
        flat = torch.frombuffer(memory, dtype=dtype, count=count, offset=entry["offset"])
        yield entry["name"], flat.view(shape)
