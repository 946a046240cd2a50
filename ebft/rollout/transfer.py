"""Copies to a device for which the host does not wait.

On a GPU, Python runs ahead of the kernels that it launches. A copy from pageable memory, which
tensors on the CPU are in, waits for all of them; a copy from pinned memory is queued like a kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Int

from ebft.lazy import Tensor, torch


def move(tensor: Tensor, device: torch.device) -> Tensor:
    """Returns the tensor on a device. A copy from the CPU does not wait; one to the CPU does, as
    its values are read there."""
    if tensor.device.type != "cpu" or device.type == "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def numbers(values: Sequence[int], device: torch.device) -> Int[Tensor, " N"]:
    """Returns whole numbers as a tensor on a device, without a wait."""
    return move(torch.tensor(values, dtype=torch.long), device)
