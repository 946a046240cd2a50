"""The keys and values of a row of trees, at their columns: what sampling reads and adds to."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor
from transformers import Cache

from ebft.models.attention import in_autocast


class TreeCache(Cache):  # type: ignore[misc]  # transformers is not typed
    """Room for a row of `columns` tokens in every layer, taken once.

    transformers' own caches copy all that they hold at every step to append to it, and those for
    sliding windows drop what is old in the order of the cache, which is not that of a tree.
    """

    def __init__(self, columns: int) -> None:
        super().__init__(layers=[])
        self._columns = columns
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self.writes_to: slice | Int[Tensor, " N"] = slice(0)
        """Where the tokens of the next forward stand."""

    def update(
        self,
        key_states: Float[Tensor, "1 H N d"],
        value_states: Float[Tensor, "1 H N d"],
        layer_idx: int,
        *_args: Any,
        **_others: Any,
    ) -> tuple[Float[Tensor, "1 H T d"], Float[Tensor, "1 H T d"]]:
        """Keys and values of the whole row, the new ones among them; zeros where none are yet."""
        new = in_autocast(key_states), in_autocast(value_states)
        if layer_idx not in self._kept:
            keys, values = (x.new_zeros(*x.shape[:2], self._columns, x.shape[3]) for x in new)
            self._kept[layer_idx] = keys, values
        keys, values = self._kept[layer_idx]
        keys[:, :, self.writes_to], values[:, :, self.writes_to] = new
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002
        """0, for architectures that ask; where tokens stand is given as their positions."""
        return 0
