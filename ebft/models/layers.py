"""The layers of a decoder of any architecture: recomputed in backward, compiled.

Recomputed is gradient checkpointing; compiled is `torch.compile`, which saves time and memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from shutil import which
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from ebft.errors import UserError
from ebft.models.decoder import decoder, decoder_blocks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

COMPILERS = (os.environ.get("CXX", "g++"), "clang++")
"""The C++ compilers that torch looks for."""


def linear_layers(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """The decoder's linear layers by their names in the model: all but the LM head, none of other
    towers, and none that computes something else with its weight (Llama 4's router)."""
    head, inside = model.get_output_embeddings(), set(decoder(model).modules())
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and type(module).forward is nn.Linear.forward
        and module is not head
        and module in inside
    }


@contextmanager
def recompute_layers(model: PreTrainedModel, *, enabled: bool) -> Iterator[None]:
    """Context manager for gradient checkpointing: forwards of `model` keep only each layer's input,
    and backward computes the layer again.

    Backward must run inside it too. Raises `ValueError` for a model without layers that support it.

    transformers checkpoints only in training mode, where dropout is on and the KV cache is silently
    dropped. So only the layers are in training mode, not their submodules, and not during their own
    forward, because some layers call dropout themselves.
    """
    if not enabled:
        yield
        return
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no layers that can be checkpointed; set "
            "training.gradient_checkpointing=false"
        )
    # transformers' switch for whole models has had two names; both set these attributes.
    try:
        for layer in layers:
            layer._gradient_checkpointing_func = partial(_recompute_in_eval_mode, layer)
            layer.gradient_checkpointing = layer.training = True
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing = layer.training = False


def _recompute_in_eval_mode(layer: nn.Module, forward: Callable[..., Any], *inputs: Any) -> Any:
    """Runs `forward(*inputs)` of a layer in eval mode, now and once more in backward."""

    def run(*inputs: Any) -> Any:
        layer.training = False
        try:
            return forward(*inputs)
        finally:
            layer.training = True

    return checkpoint(run, *inputs, use_reentrant=False)


def compile_layers(model: PreTrainedModel) -> None:
    """Makes every decoder layer compile when it first runs, in place; weights do not change.

    All layers share their compiled code. Sizes are dynamic, so other tree lengths do not recompile
    it. Attention over trees is not compiled (`models.attention`), so a layer has one graph before
    it and one after. Raises `ValueError` for a model without a list of layers, and `UserError` if
    there is no C++ compiler.
    """
    if model.device.type == "cpu" and not any(map(which, COMPILERS)):
        raise UserError(
            "training.compile = true: on a CPU it needs a C++ compiler, and there is none; "
            "install g++ or clang++, or set training.compile=false"
        )
    _, blocks = decoder_blocks(model)
    for block in blocks:
        block.compile(dynamic=True)


def eager(model: PreTrainedModel) -> AbstractContextManager[None]:
    """Context manager in which compiled layers of the model run eagerly.

    It is used for sampling, where compiling takes longer than it saves. If no layer is compiled,
    it does nothing, because torch's switch is global and would turn off FlexAttention's kernels.
    """
    if not any(module._compiled_call_impl is not None for module in model.modules()):
        return nullcontext()
    return torch.compiler.set_stance("force_eager")  # type: ignore[no-any-return]
