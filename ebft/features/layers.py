"""Hidden states of chosen layers of a frozen decoder, without running the layers after them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float, Int

from ebft.lazy import Tensor
from ebft.rollout.tree_mask import TreeMask

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class FrozenLayers:
    """Reads hidden states number `indices` of a decoder, 1 … L; number L is after the final norm.

    The model is not changed; its layers after the deepest index do not run.
    """

    def __init__(self, model: PreTrainedModel, indices: Sequence[int]) -> None:
        from ebft.models.decoder import decoder_blocks, first_layers

        _, blocks = decoder_blocks(model)
        assert all(1 <= index <= len(blocks) for index in indices), (indices, len(blocks))
        self._indices = tuple(indices)
        self._inner = sorted(set(indices) - {len(blocks)})
        self._layers = [blocks[index - 1] for index in self._inner]
        self._depth = len(blocks)
        self._model, self._decoder = model, first_layers(model, max(indices))

    def __call__(
        self,
        tokens: Int[Tensor, "1 T"],
        positions: Int[Tensor, "1 T"],
        tree_mask: TreeMask,
    ) -> list[Float[Tensor, "1 T d"]]:
        from ebft.models.forward import decode_with_layers
        from ebft.models.whole import whole

        outputs = whole(
            self._model, decode_with_layers,
            self._decoder, tokens, positions, tree_mask, self._layers,
        )  # fmt: skip
        captured = dict(zip([*self._inner, self._depth], outputs, strict=True))
        return [captured[index] for index in self._indices]
