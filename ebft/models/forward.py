"""Forward passes of decoders of any architecture, up to the last hidden states; their KV cache."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache as remember
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import Cache

from ebft.models.attention import in_autocast, needs_mask, no_mask
from ebft.rollout.tree_mask import TreeMask

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Returns autocast: matrix products in `precision`, weights in their own precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16)


def decode(
    model: PreTrainedModel,
    tokens: Int[Tensor, "1 N"],
    positions: Int[Tensor, "1 N"],
    tree_mask: TreeMask,
    cache: TreeCache | None = None,
) -> Float[Tensor, "1 N d"]:
    """Returns the last hidden states of the decoder (final norm included), without the LM head.

    With a cache, the N new keys are written to its columns `writes_to`, and queries attend to all
    keys of the cache within the mask. Raises `ValueError` for a model whose attention does not
    support trees (`models.attention`).
    """
    output = model.base_model(
        input_ids=tokens,
        position_ids=positions,
        attention_mask=tree_mask.dense if needs_mask(model) else no_mask(tokens.device),
        use_cache=cache is not None,
        tree_mask=tree_mask,
        **{cache_argument(type(model.base_model).forward): cache},
    )
    return cast(Tensor, output.last_hidden_state)


@remember
def cache_argument(forward: Callable[..., Any]) -> str:
    """Returns the name of the argument of a decoder's `forward` that takes a KV cache.

    transformers 5.24 has renamed it, and gives up the old name in 5.40. Models that come with their
    own code may have the old one for longer.
    """
    names = inspect.signature(forward).parameters
    return "cache" if "cache" in names else "past_key_values"


class TreeCache(Cache):  # type: ignore[misc]  # transformers is not typed
    """Keys and values of a row of `columns` tokens in every layer, allocated once.

    transformers' own caches copy their whole content to append a token. Those for sliding windows
    drop the first entries, which in a tree are not the oldest.
    """

    def __init__(self, columns: int) -> None:
        super().__init__(layers=[])
        self._columns = columns
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self.writes_to: slice | Int[Tensor, " N"] = slice(0)
        """The columns of the tokens of the next forward."""

    def update(
        self,
        key_states: Float[Tensor, "1 H N d"],
        value_states: Float[Tensor, "1 H N d"],
        layer_idx: int,
        *_args: Any,
        **_others: Any,
    ) -> tuple[Float[Tensor, "1 H T d"], Float[Tensor, "1 H T d"]]:
        """Writes the new keys and values; returns those of the whole row, zeros where unset."""
        new = in_autocast(key_states), in_autocast(value_states)
        if layer_idx not in self._kept:
            keys, values = (x.new_zeros(*x.shape[:2], self._columns, x.shape[3]) for x in new)
            self._kept[layer_idx] = keys, values
        keys, values = self._kept[layer_idx]
        keys[:, :, self.writes_to], values[:, :, self.writes_to] = new
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002
        """Returns 0. Some architectures ask for it, but positions are passed explicitly."""
        return 0
