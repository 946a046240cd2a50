"""Hidden states of chosen layers of a frozen decoder, without running the layers after them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ebft.models.forward import decode
from ebft.models.layers import decoder_blocks
from ebft.models.whole import whole
from ebft.rollout.tree_mask import TreeMask

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class FrozenLayers:
    """Reads hidden states number `indices` of a decoder, 1 … L; number L is after the final norm.

    The model is not changed; its layers after the deepest index do not run.
    """

    def __init__(self, model: PreTrainedModel, indices: Sequence[int]) -> None:
        _, blocks = decoder_blocks(model)
        assert all(1 <= index <= len(blocks) for index in indices), (indices, len(blocks))
        self._indices = tuple(indices)
        self._depth = len(blocks)
        self._blocks = blocks
        self._model, self._decoder = model, first_layers(model, max(indices))

    @torch.no_grad()
    def __call__(
        self,
        tokens: Int[Tensor, "1 T"],
        positions: Int[Tensor, "1 T"],
        tree_mask: TreeMask,
    ) -> list[Float[Tensor, "1 T d"]]:
        captured: dict[int, Tensor] = {}

        def keep(index: int, _module: nn.Module, _inputs: Any, output: Any) -> None:
            captured[index] = output[0] if isinstance(output, tuple) else output

        with ExitStack() as hooks:
            for index in set(self._indices) - {self._depth}:
                handle = self._blocks[index - 1].register_forward_hook(partial(keep, index))
                hooks.callback(handle.remove)
            captured[self._depth] = whole(
                self._model, decode, self._decoder, tokens, positions, tree_mask
            )
        return [captured[index] for index in self._indices]


def first_layers(model: PreTrainedModel, count: int) -> PreTrainedModel:
    """Returns the decoder cut after `count` layers: a new module around the same weights."""
    name, blocks = decoder_blocks(model)
    decoder = copy.copy(model.base_model)
    # The copy shares its dict of children with the original, which must keep all its layers.
    decoder._modules = {**decoder._modules, name: blocks[:count]}
    return cast("PreTrainedModel", decoder)
