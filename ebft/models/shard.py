"""Shards a policy's weights over processes, with FSDP2.

FSDP gathers a layer's weights in hooks around the layer's own forward. The weights outside the
layers (the embeddings, the last norm, and the LM head, which `models.log_probs` uses without its
forward) are gathered by a root module around the whole computation: `models.whole`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from ebft.models.decoder import decoder_blocks
from ebft.models.export import WholeWeights
from ebft.models.lora import has_adapter, merged
from ebft.models.quantize import is_quantized
from ebft.models.rows import rows_like, set_aside, without_values
from ebft.models.whole import Root, roots
from ebft.models.write_rows import tensors_on_disk

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.nn import Parameter
    from transformers import PreTrainedModel


def shard(model: PreTrainedModel, mesh: DeviceMesh, precision: torch.dtype) -> None:
    """Shards the model's weights over the processes of `mesh`, in place. Those that are divided
    already, of which each process has read its rows (`models.rows`), stay where they are.

    Weights, gradients and optimizer moments stay float32. On GPUs the layers' weights are gathered
    in `precision`; weights outside the layers are gathered in float32, because the residual stream
    starts there and the head accumulates its gradient in parts. Gradients are summed over the
    processes, because each process's loss is a part of a sum.
    """
    on_gpu = mesh.device_type == "cuda"

    def policy(gathered: torch.dtype | None) -> MixedPrecisionPolicy:
        reduced = torch.float32 if on_gpu else None
        return MixedPrecisionPolicy(gathered, reduced, cast_forward_inputs=False)

    # In 4 bits they are an eighth of what FSDP would gather, so every process has all of them.
    whole = {p for p in model.parameters() if is_quantized(p)}
    root = Root(model, keep)
    _, layers = decoder_blocks(model)
    rounded = precision if on_gpu and precision != torch.float32 else None
    # FSDP divides weights that have no values yet, and takes the rows when it begins.
    with set_aside(model, without_values):
        for module, gathered in (*((layer, rounded) for layer in layers), (root, None)):
            fully_shard(
                module, mesh=mesh, mp_policy=policy(gathered), reshard_after_forward=True,
                ignored_params=whole,
            )  # fmt: skip
    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    roots[model] = root


def keep(root: Root, kept: bool) -> None:
    """Gathers all weights and keeps them after every forward; if not `kept`, shards them again."""
    root(lambda: None)  # the first forward tells FSDP which one is the root
    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.set_reshard_after_forward(not kept, recurse=False)
            if kept:
                module.unshard()
            else:
                module.reshard()


class SavedWeights(NamedTuple):
    """The weights of a checkpoint: `whole` ones, which the main process has on its CPU, and those
    of which each process writes its own `rows`, by their names on disk."""

    whole: WholeWeights
    rows: dict[str, Tensor]


def weights_to_save(policy: PreTrainedModel, *, merge_adapter: bool) -> SavedWeights:
    """Returns the weights of a checkpoint, without a copy of the model's unless an adapter is
    merged. All processes must call it.

    The main process gets the whole adapter. It gets the whole model if weights are on disk in
    another form than in the model.
    """
    adapter = whole_weights(policy, trained_alone=True) if has_adapter(policy) else {}
    if has_adapter(policy) and not merge_adapter:
        return SavedWeights(WholeWeights({}, adapter), {})
    model = merged(policy)
    rows = tensors_on_disk(model)
    if rows is None:
        return SavedWeights(WholeWeights(whole_weights(model), adapter), {})
    return SavedWeights(WholeWeights({}, adapter), rows)


def whole_weights(model: PreTrainedModel, *, trained_alone: bool = False) -> dict[str, Tensor]:
    """Returns all of the model's weights on the CPU of the main process; the other processes get
    none. A weight with two names (tied embeddings) is included once, as `save_pretrained` expects.
    """
    options = StateDictOptions(
        full_state_dict=True, cpu_offload=True, ignore_frozen_params=trained_alone
    )
    once = {name for name, _ in model.named_parameters()}
    twice = {name for name, _ in model.named_parameters(remove_duplicate=False)} - once
    weights = cast(dict[str, Tensor], get_model_state_dict(model, options=options))
    return {name: weight for name, weight in weights.items() if name not in twice}


def unsharded(state: Any) -> Any:
    """Returns a nested state with its tensors gathered, on the CPU. All processes must call it."""
    match state:
        case DTensor():
            return state.full_tensor().cpu()
        case dict():
            return {key: unsharded(value) for key, value in state.items()}
        case list() | tuple():
            return type(state)(unsharded(value) for value in state)
    return state


def is_like(parameter: Tensor, value: Any) -> bool:
    """Returns whether the value is sharded in the same way as the parameter."""
    return (
        isinstance(parameter, DTensor)
        and isinstance(value, DTensor)
        and value.shape == parameter.shape
        and value.placements == parameter.placements
    )


def sharded_like(parameter: Tensor, value: Any) -> Any:
    """Returns this process's shard of a value of the parameter's shape; other values unchanged."""
    if not (isinstance(parameter, DTensor) and isinstance(value, Tensor)):
        return value
    return rows_like(parameter, value) if value.shape == parameter.shape else value


def unsharded_parameters(model: PreTrainedModel) -> list[Parameter]:
    """Returns the trained parameters that forwards compute with, whose gradients are whole until
    FSDP reduces them. They are the same objects in every forward. All processes must call it."""
    found = []
    for module in roots[model].modules():
        if isinstance(module, FSDPModule):
            module.unshard()
            # A module inside that has a group of its own is still sharded.
            found += [
                p for p in module.parameters() if p.requires_grad and not isinstance(p, DTensor)
            ]
            module.reshard()
    return found
