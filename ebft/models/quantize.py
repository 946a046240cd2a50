"""QLoRA's base model (Dettmers et al., arXiv 2305.14314): linear layers in 4 bits, and an adapter.

The format is torchao's NF4 with quantised scales, as in torchtune. A layer computes with its
dequantised weights. So do a merged model and the frozen feature network, which is the policy
without its adapter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torchao.dtypes.nf4tensor import NF4Tensor, to_nf4

from ebft.errors import UserError
from ebft.models.layers import linear_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BLOCK = 64
"""Weights that share a scale."""
SCALES = 256
"""The most scales that are quantised together."""


def quantize_to(model: PreTrainedModel, device: torch.device) -> None:
    """Moves a model to a device, in place, with its decoder's linear layers in 4 bits.

    Layers are quantised on the device one by one, so at most one of them is there in float32.
    Embeddings, norms and the LM head are not quantised. Raises `UserError` for a layer whose number
    of weights is not a multiple of 64.
    """
    layers = _layers(model)
    weights = {name: layer.weight for name, layer in layers.items()}
    for layer in layers.values():
        layer._parameters["weight"] = None  # not moved with the rest
    model.to(device)
    for name, layer in layers.items():
        quantized = _nf4(weights.pop(name).detach().to(device))
        layer.weight = nn.Parameter(quantized, requires_grad=False)


def round_to_nf4(model: PreTrainedModel) -> None:
    """Rounds the weights of the decoder's linear layers to their NF4 values, in place."""
    for layer in _layers(model).values():
        layer.weight.data = dense(_nf4(layer.weight.data))


def dense(weight: Tensor) -> Tensor:
    """Returns the dequantised weight; a weight that is not quantised is returned unchanged."""
    return cast(Tensor, weight.get_original_weight()) if isinstance(weight, NF4Tensor) else weight


def is_quantized(weight: Tensor) -> bool:
    """Returns whether a weight is in 4 bits."""
    return isinstance(weight, NF4Tensor)


def _layers(model: PreTrainedModel) -> dict[str, nn.Linear]:
    layers = linear_layers(model)
    for name, layer in layers.items():
        if layer.weight.numel() % BLOCK:
            raise UserError(
                f"model.lora.quantize_base = true: {name} has {layer.weight.numel()} weights, no "
                f"multiple of {BLOCK}; set model.lora.quantize_base=false"
            )
    return layers


def _nf4(weight: Tensor) -> NF4Tensor:
    blocks = weight.numel() // BLOCK
    together = next(size for size in range(min(SCALES, blocks), 0, -1) if blocks % size == 0)
    return to_nf4(weight, block_size=BLOCK, scaler_block_size=together)
