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

ALIGNMENT = 64
"""Bytes; every tensor starts at a multiple, for fast kernels."""


class SharedWeights:
    """A block of memory for the policy's weights, with the same layout at every sync."""

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
        """Copies weights in, cast to the engine's dtype. Raises `ValueError` for other names."""
        if weights.keys() != self._views.keys():
            names = sorted(weights.keys() ^ self._views.keys())
            raise ValueError(f"the policy's weights have changed their names: {names[:3]}")
        for name, view in self._views.items():
            view.copy_(weights[name])

    def close(self) -> None:
        """Frees the memory."""
        self._views.clear()
        self._memory.close()
        os.close(self._file)


@contextmanager
def open_weights(path: str, layout: list[dict[str, Any]]) -> Iterator[dict[str, Tensor]]:
    """Maps the weights of the `SharedWeights` at `path`; the tensors are views, not copies."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        memory = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)
    # The map is not closed here: it is freed with the last tensor that views it.
    yield dict(_views(memory, layout))


def _views(memory: mmap.mmap, layout: list[dict[str, Any]]) -> Iterator[tuple[str, Tensor]]:
    for entry in layout:
        shape, dtype = entry["shape"], getattr(torch, entry["dtype"])
        count = torch.Size(shape).numel()
        flat = torch.frombuffer(memory, dtype=dtype, count=count, offset=entry["offset"])
        yield entry["name"], flat.view(shape)
