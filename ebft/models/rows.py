"""Weights of which each process has its own rows, as they are loaded, digested and replaced.

transformers reads of a weight in the files only the rows that this process has, if the weight is a
DTensor when the files are read. So the model's class makes DTensors of its weights as soon as it
has constructed them, on the meta device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_tensor

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from transformers import PreTrainedModel


def load_rows(
    outline: PreTrainedModel, source: Mapping[str, Any], how: Mapping[str, Any], mesh: DeviceMesh
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Loads this process's rows of the model whose `outline` has its class and configuration.

    `source` and `how` are arguments of `from_pretrained`, which is to return its loading info too.
    """
    its_class = type(outline)
    model, info = with_rows(its_class, mesh).from_pretrained(**source, **how, config=outline.config)
    model.__class__ = its_class
    return model, info


def with_rows(model_class: type[PreTrainedModel], mesh: DeviceMesh) -> type[PreTrainedModel]:
    """Returns a class of the same models, whose weights are divided over `mesh` as FSDP does it:
    rows over its last dimension, the same in each replica."""

    class WithRows(model_class):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            divide_rows(self, mesh)

    # By these, transformers finds the names that weights have in files.
    WithRows.__name__ = model_class.__name__
    WithRows.__qualname__ = model_class.__qualname__
    WithRows.__module__ = model_class.__module__
    return WithRows


def divide_rows(model: nn.Module, mesh: DeviceMesh) -> None:
    """Leaves of each weight the rows of this process, in place. Scalars stay whole."""
    placements: list[Placement] = [*[Replicate()] * (mesh.ndim - 1), Shard(0)]
    divided: dict[int, nn.Parameter] = {}  # by the weight's id, for those with two names
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if weight.dim() == 0:
                continue
            if id(weight) not in divided:
                rows = distribute_tensor(weight.detach(), mesh, placements, src_data_rank=None)
                divided[id(weight)] = nn.Parameter(rows, requires_grad=weight.requires_grad)
            setattr(module, name, divided[id(weight)])


@contextmanager
def set_aside(model: nn.Module, outline: Callable[[DTensor], Tensor]) -> Iterator[None]:
    """A context in which the model has the outlines of its divided weights in place of them."""
    places = [
        (module, name, weight)
        for module in model.modules()
        for name, weight in module.named_parameters(recurse=False)
        if isinstance(weight, DTensor)
    ]
    outlines = {
        id(weight): nn.Parameter(outline(weight), requires_grad=weight.requires_grad)
        for _, _, weight in places
    }
    for module, name, weight in places:
        setattr(module, name, outlines[id(weight)])
    yield
    for module, name, weight in places:
        weight.requires_grad_(getattr(module, name).requires_grad)
        setattr(module, name, weight)


def without_values(weight: DTensor) -> Tensor:
    """Returns an outline of the weight on the meta device."""
    return torch.empty(weight.shape, dtype=weight.dtype, device="meta")


def without_memory(weight: DTensor) -> Tensor:
    """Returns an outline of the weight on its device, which is one zero, expanded."""
    return torch.zeros((), dtype=weight.dtype, device=weight.device).expand(weight.shape)


def own_rows(weight: DTensor) -> tuple[Tensor, int]:
    """Returns this process's rows of a weight, and the number of the first."""
    rows = weight.to_local().detach()
    shards = weight.device_mesh.size(-1)
    each = -(-weight.shape[0] // shards)
    first = min(weight.shape[0], each * weight.device_mesh.get_local_rank(-1))
    assert len(rows) == min(each, weight.shape[0] - first), (rows.shape, weight.shape)
    return rows, first


def evenly_spaced(weight: Tensor, count: int) -> Tensor:
    """Returns about `count` values of a weight, evenly spaced over all of it, as float32.

    All processes of a divided weight must call it, and return the same.
    """
    step = max(1, weight.numel() // count)
    if not isinstance(weight, DTensor):
        return weight.flatten()[::step].float()
    rows, first = own_rows(weight)
    before = first * (weight.numel() // max(1, weight.shape[0]))
    skipped = -before % step
    own = rows.flatten()[skipped::step].float()
    place = (before + skipped) // step
    # As integers: a sum of floats would lose the sign of −0.
    bits = torch.zeros(-(-weight.numel() // step), dtype=torch.int32, device=rows.device)
    bits[place : place + len(own)] = own.view(torch.int32)
    torch.distributed.all_reduce(bits, group=weight.device_mesh.get_group(-1))
    return bits.view(torch.float32)


def mesh_of(model: nn.Module) -> DeviceMesh | None:
    """Returns the processes that the model's weights are divided over; None if they are not."""
    divided = (weight for weight in model.parameters() if isinstance(weight, DTensor))
    first = next(divided, None)
    return None if first is None else first.device_mesh


def rows_like(tensor: Tensor, value: Tensor) -> Tensor:
    """Returns a value of the tensor's shape divided as the tensor is, with this process's rows."""
    if not isinstance(tensor, DTensor) or isinstance(value, DTensor):
        return value
    # Every process has read the same file, so nothing has to be sent.
    return distribute_tensor(
        value.to(tensor.device), tensor.device_mesh, tensor.placements, src_data_rank=None
    )
