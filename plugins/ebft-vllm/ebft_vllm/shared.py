"""Weights in memory that another process on the same machine maps: no disk, no sockets.

The memory is anonymous (`memfd`): it is not limited by the size of /dev/shm, which containers keep
small, and it disappears with the process that made it, however that ends.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

ALIGNMENT = 64
"""Bytes: every tensor starts at a multiple, as kernels like it."""


class SharedWeights:
    """A block of memory that holds one set of weights after the other, always laid out alike."""

    def __init__(self, weights: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        self.layout: list[dict[str, Any]] = []
        size = 0
        for name, tensor in weights.items():
            kept = dtype if tensor.is_floating_point() else tensor.dtype
            self.layout.append(
                {
                    "name": name,
                    "dtype": str(kept).removeprefix("torch."),
                    "shape": list(tensor.shape),
                    "offset": size,
                }
            )
            size += -(-tensor.numel() * kept.itemsize // ALIGNMENT) * ALIGNMENT
        self._file = os.memfd_create("ebft-weights")
        os.ftruncate(self._file, size)
        self._memory = mmap.mmap(self._file, size)
        self.path = f"/proc/{os.getpid()}/fd/{self._file}"
        self._views = dict(_views(self._memory, self.layout))

    def write(self, weights: Mapping[str, Tensor]) -> None:
        """Copies weights in, cast to the engine's type. Raises `ValueError` for other names."""
        if weights.keys() != self._views.keys():
            names = sorted(weights.keys() ^ self._views.keys())
            raise ValueError(f"the policy's weights have changed their names: {names[:3]}")
        for name, view in self._views.items():
            view.copy_(weights[name])

    def close(self) -> None:
        """Gives the memory back."""
        self._views.clear()
        self._memory.close()
        os.close(self._file)


@contextmanager
def open_weights(path: str, layout: list[dict[str, Any]]) -> Iterator[dict[str, Tensor]]:
    """The weights that `SharedWeights` has at `path`, as tensors of its memory, not of copies."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        memory = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)
    # Not closed: the map lives as long as a tensor of it does, and no longer.
    yield dict(_views(memory, layout))


def _views(memory: mmap.mmap, layout: list[dict[str, Any]]) -> Iterator[tuple[str, Tensor]]:
    for entry in layout:
        shape, dtype = entry["shape"], getattr(torch, entry["dtype"])
        count = torch.Size(shape).numel()
        flat = torch.frombuffer(memory, dtype=dtype, count=count, offset=entry["offset"])
        yield entry["name"], flat.view(shape)
