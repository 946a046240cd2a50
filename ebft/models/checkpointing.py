"""Gradient checkpointing: layers keep only their inputs, and are computed again in backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from torch.nn import Module
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def checkpointing(model: PreTrainedModel, *, enabled: bool) -> Iterator[None]:
    """Context manager in which forwards of `model` keep only each layer's input.

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
            layer._gradient_checkpointing_func = partial(checkpoint_in_eval_mode, layer)
            layer.gradient_checkpointing = layer.training = True
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing = layer.training = False


def checkpoint_in_eval_mode(layer: Module, forward: Callable[..., Any], *inputs: Any) -> Any:
    """Checkpoints `forward(*inputs)` of a layer, which runs in eval mode both times."""

    def run(*inputs: Any) -> Any:
        layer.training = False
        try:
            return forward(*inputs)
        finally:
            layer.training = True

    return checkpoint(run, *inputs, use_reentrant=False)
