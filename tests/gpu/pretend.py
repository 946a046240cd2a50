"""A device that is none: its tensors are on the CPU, and what a GPU would wait for is counted.

On a GPU, Python runs ahead of the kernels that it launches, until it needs a value from the device,
or copies memory that is not pinned: then both wait. Such waits, tensors on the wrong device, and
the number of launched kernels can all be found without a GPU, which is what this is for.

The device is called `meta`, because that is the only one besides the CPU for which torch has an
autograd engine in every build. Autocast does not know it, so there is none.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
ROOT = Path(__file__).parents[2]
WAITS = {
    "_local_scalar_dense", "_unique2", "bincount", "equal", "masked_select", "nonzero",
    "unique_consecutive", "unique_dim",
}  # fmt: skip
"""Kernels whose result has a size or a value that the host must know; others wait sometimes."""
MOVES = {"_to_copy", "copy_"}
INDEXES = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}


class OnDevice(torch.Tensor):
    """A tensor that says it is on the device; its numbers are in `inner`, on the CPU."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> OnDevice:
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, device=DEVICE,
        )  # fmt: skip

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} of a tensor on the device, outside of `pretending`")


@dataclass
class Counts:
    """What has happened: `waits` by what waited and where, and kernels by name."""

    waits: Counter[str] = field(default_factory=Counter)
    kernels: Counter[str] = field(default_factory=Counter)
    pinned: list[torch.Tensor] = field(default_factory=list)
    """Copies of tensors in pinned memory, kept so that no other tensor is taken for one."""

    def clear(self) -> None:
        self.waits.clear()
        self.kernels.clear()

    @property
    def waited(self) -> int:
        return self.waits.total()

    @property
    def launched(self) -> int:
        return self.kernels.total()


@contextmanager
def pretending() -> Iterator[Counts]:
    """Context manager in which `DEVICE` is a device; gives the counts."""
    counts = Counts()
    lifted = torch._C._only_lift_cpu_tensors()
    with ExitStack() as stack:
        stack.callback(torch._C._set_only_lift_cpu_tensors, lifted)
        torch._C._set_only_lift_cpu_tensors(True)  # or `torch.tensor` would not be dispatched
        for name, value in (
            ("torch.is_autocast_enabled", lambda *_: False),
            ("torch.autocast", lambda *_, **__: nullcontext()),
        ):
            stack.enter_context(patch(name, value))
        stack.enter_context(_Dispatch(counts))
        stack.enter_context(_Functions())
        yield counts


def put(module: nn.Module) -> nn.Module:
    """Puts a module's weights and buffers on the device, in place; tied weights stay tied."""
    moved: dict[int, nn.Parameter] = {}
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                new = nn.Parameter(OnDevice(weight.data), requires_grad=weight.requires_grad)
                part._parameters[name] = moved.setdefault(id(weight), new)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = OnDevice(buffer)
    return module


class _Functions(TorchFunctionMode):
    """What torch decides by the name of the device before it dispatches."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.tolist and isinstance(args[0], OnDevice):
            return args[0].cpu().tolist()
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            made = args[0] if isinstance(args[0], torch.Tensor) else func(*args, **kwargs)
            return made.to(device)
        return func(*args, **kwargs)


class _Dispatch(TorchDispatchMode):
    """Runs everything on the CPU, and counts."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self._counts = counts

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = func.overloadpacket.__name__
        if name == "_pin_memory":  # there is nothing to pin memory for
            with torch._C._DisableTorchDispatch():
                copy = args[0].clone()
            self._counts.pinned.append(copy)
            return copy
        ours = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        on_device = any(isinstance(x, OnDevice) for x in ours)
        there = on_device
        if kwargs.get("device") is not None:
            there = torch.device(kwargs["device"]) == DEVICE
            kwargs["device"] = torch.device("cpu")
        if name == "copy_":
            there = isinstance(args[0], OnDevice)
        if on_device or there:
            self._count(func, name, args, kwargs, ours, there)
        with torch._C._DisableTorchDispatch():
            inner = tree_map(lambda x: x.inner if isinstance(x, OnDevice) else x, (args, kwargs))
            out = func(*inner[0], **inner[1])
            if not there or name in ("_local_scalar_dense", "equal"):
                return out
            same = {id(x.inner): x for x in ours if isinstance(x, OnDevice)}

            def wrap(x: Any) -> Any:
                if not isinstance(x, torch.Tensor):
                    return x
                return same[id(x)] if id(x) in same else OnDevice(x)

            return tree_map(wrap, out)

    def _count(self, func, name, args, kwargs, tensors, there) -> None:
        waits = self._waits_for(name, args, kwargs, there)
        if waits:
            self._counts.waits[f"{name} at {where()}"] += 1
        elif name not in MOVES and name not in INDEXES:
            mixed = [x for x in tensors if not isinstance(x, OnDevice) and x.ndim]
            assert not mixed, f"{func} of tensors on the CPU and on the device, at {where()}"
        if not func.is_view:
            self._counts.kernels[name] += 1

    def _waits_for(self, name, args, kwargs, there) -> bool:
        if name in WAITS:
            return True
        if name in MOVES:
            source = args[1] if name == "copy_" else args[0]
            if isinstance(source, OnDevice) == there:
                return False  # it stays where it is
            queued = kwargs.get("non_blocking", False)
            return not (queued and any(source is copy for copy in self._counts.pinned))
        if name == "repeat_interleave":
            return kwargs.get("output_size") is None
        if name in INDEXES:
            indices = [x for x in args[1] if x is not None]
            return any(x.dtype in (torch.bool, torch.uint8) or not isinstance(x, OnDevice)
                       for x in indices)  # fmt: skip
        return False


def where() -> str:
    """The line of ebft, or of a test, that is running."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        # An environment may stand inside of the checkout.
        ours = path.is_relative_to(ROOT) and "site-packages" not in path.parts
        if ours and path != Path(__file__):
            return f"{path.relative_to(ROOT)}:{frame.lineno} {frame.name}"
    return "outside of ebft"
