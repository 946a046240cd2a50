"""QLoRA's base model (Dettmers et al., arXiv 2305.14314): linear layers in 4 bits, and an adapter.

The format is torchao's NF4 with quantised scales. It is in plain PyTorch, so it computes the same
numbers on every device and with every release of torchao: an adapter keeps the base that it was
trained on. A layer computes with its dequantised weights. So do a merged model and the frozen
feature network, which is the policy without its adapter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from ebft.errors import UserError
from ebft.models.layers import linear_layers
from ebft.parts.packages import missing

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BLOCK = 64
"""Weights that share a scale."""
SCALES = 256
"""The most scales that are quantised together."""


@runtime_checkable
class Quantized(Protocol):
    """What torchao's tensors in 4 bits have and no others, so that torchao is not imported to tell
    them."""

    def get_original_weight(self) -> Tensor:
        """Returns the dequantised weight."""


def quantize_to(model: PreTrainedModel, device: torch.device) -> None:
    """Moves a model to a device, in place, with its decoder's linear layers in 4 bits.

    Layers are quantised on the device one by one, so at most one of them is there in float32.
    Embeddings, norms and the LM head are not quantised. Raises `UserError` for a layer whose number
    of weights is not a multiple of 64, and if torchao is not installed.
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
    """Rounds the weights of the decoder's linear layers to their NF4 values, in place.

    Raises `UserError` as `quantize_to` does.
    """
    for layer in _layers(model).values():
        layer.weight.data = dense(_nf4(layer.weight.data))


def dense(weight: Tensor) -> Tensor:
    """Returns the dequantised weight; a weight that is not quantised is returned unchanged."""
    return weight.get_original_weight() if isinstance(weight, Quantized) else weight


def is_quantized(weight: Tensor) -> bool:
    """Returns whether a weight is in 4 bits."""
    return isinstance(weight, Quantized)


def _layers(model: PreTrainedModel) -> dict[str, nn.Linear]:
    layers = linear_layers(model)
    for name, layer in layers.items():
        if layer.weight.numel() % BLOCK:
            raise UserError(
                f"model.lora.quantize_base = true: {name} has {layer.weight.numel()} weights, no "
                f"multiple of {BLOCK}; set model.lora.quantize_base=false"
            )
    return layers


def _nf4(weight: Tensor) -> Tensor:
    if (lacking := missing("torchao")) is not None:
        raise UserError(f"weights in 4 bits (model.lora.quantize_base): {lacking}")
    try:
        from torchao.quantization import to_nf4
    except ImportError:  # where it was in torchao 0.15
        from torchao.dtypes import to_nf4
    blocks = weight.numel() // BLOCK
    together = next(size for size in range(min(SCALES, blocks), 0, -1) if blocks % size == 0)
    return cast(Tensor, to_nf4(weight, block_size=BLOCK, scaler_block_size=together))
