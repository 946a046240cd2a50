"""Gradient checkpointing: layers keep their inputs alone and are computed again in backward."""

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
    """Within it, forwards of `model` keep each layer's input and nothing else.

    Backward belongs inside too. Raises `ValueError` for a model without layers that can.

    transformers checkpoints in training mode only, where dropout is on and the cache of sampling
    is silently given up. So only the layers are told that they train, not what is in them, and
    not while they compute: some call dropout themselves.
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
    # transformers' switch for whole models has had two names; these are what either one sets.
    try:
        for layer in layers:
            layer._gradient_checkpointing_func = partial(checkpoint_in_eval_mode, layer)
            layer.gradient_checkpointing = layer.training = True
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing = layer.training = False


def checkpoint_in_eval_mode(layer: Module, forward: Callable[..., Any], *inputs: Any) -> Any:
    """`forward(*inputs)` of a layer, now and again in backward, as if the layer did not train."""

    def run(*inputs: Any) -> Any:
        layer.training = False
        try:
            return forward(*inputs)
        finally:
            layer.training = True

    return checkpoint(run, *inputs, use_reentrant=False)
