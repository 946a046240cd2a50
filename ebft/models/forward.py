"""Forward passes of decoders of any architecture, up to the last hidden states.

There are two layouts. A model whose attention supports trees computes a row of trees at once. Any
other computes the same hidden states from rows: every branch with its prefix as a text of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache as remember
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import Cache

from ebft.models.attention import in_autocast, needs_mask, no_mask, on_tree
from ebft.models.decoder import decoder
from ebft.models.whole import most_forwards
from ebft.rollout.rows import Rows, as_rows, nothing_of_its_own, to_columns
from ebft.rollout.tree_mask import Merged, TreeMask

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Returns autocast: matrix products in `precision`, weights in their own precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16)


def slowdown(precision: torch.dtype, *, size: int = 512, tries: int = 5) -> float:
    """Returns how many times as long a CPU takes for a matrix product in `precision` as in float32.

    A CPU without instructions for bfloat16 takes several times as long. The fastest of some
    products is taken, which other work on the machine disturbs least.
    """

    def seconds(dtype: torch.dtype) -> float:
        matrix = torch.ones(size, size, dtype=dtype)
        matrix @ matrix  # the first sets up the library
        found = []
        for _ in range(tries):
            began = perf_counter()
            matrix @ matrix
            found.append(perf_counter() - began)
        return min(found)

    return seconds(precision) / seconds(torch.float32)


def decode(
    model: PreTrainedModel,
    tokens: Int[Tensor, "1 N"],
    positions: Int[Tensor, "1 N"],
    tree_mask: TreeMask,
    cache: TreeCache | None = None,
) -> Float[Tensor, "1 N d"]:
    """Returns the last hidden states of the decoder (final norm included), without the LM head.

    With a cache, the N new keys are written to its columns `writes_to`, and queries attend to all
    keys of the cache within the mask; only a model whose attention supports trees takes one.
    """
    if not on_tree(model):
        assert cache is None, "a model on rows has caches of its own"
        return _decode_rows(decoder(model), tokens, tree_mask, _batches(tree_mask))
    output = decoder(model)(
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


@torch.no_grad()
def decode_with_layers(
    model: PreTrainedModel,
    tokens: Int[Tensor, "1 T"],
    positions: Int[Tensor, "1 T"],
    tree_mask: TreeMask,
    layers: Sequence[nn.Module],
) -> list[Float[Tensor, "1 T D"]]:
    """Returns the outputs of some of the decoder's layers, and then what `decode` returns.

    A layer that puts out several streams for each token has them one after another.
    """
    batches = None if on_tree(model) else _batches(tree_mask)
    kept: list[list[Tensor]] = [[] for _ in layers]

    def keep(place: int, _module: nn.Module, _inputs: Any, output: Any) -> None:
        output = output[0] if isinstance(output, tuple | list) else output
        if batches is None:
            kept[place].append(_each_token(output, 1, tokens.shape[1]))
            return
        batch = batches[len(kept[place])]
        kept[place].append(_each_token(output, *batch.own.shape)[batch.own])

    with ExitStack() as hooks:
        for place, layer in enumerate(layers):
            hooks.callback(layer.register_forward_hook(partial(keep, place)).remove)
        if batches is None:
            last = decode(model, tokens, positions, tree_mask)
            return [*(each for (each,) in kept), last]
        last = _decode_rows(decoder(model), tokens, tree_mask, batches)
    return [*(_in_columns(parts, batches, tree_mask) for parts in kept), last]


def _batches(tree_mask: TreeMask) -> list[Rows]:
    """Returns the batches of rows, with as many forwards as other processes have."""
    batches = as_rows(tree_mask)
    missing = most_forwards(len(batches)) - len(batches)
    return [*batches, *[nothing_of_its_own(tree_mask.anchors.device)] * missing]


def _decode_rows(
    decoder: PreTrainedModel,
    tokens: Int[Tensor, "1 T"],
    tree_mask: TreeMask,
    batches: Sequence[Rows],
) -> Float[Tensor, "1 T d"]:
    if tree_mask.merged is not None:
        tokens = tokens[:, tree_mask.merged.spread]

    # Without a mask: no token sees the padding after it, and a query that is padding would see no
    # key at all through a sliding window, which makes gradients NaN.
    def run(batch: Rows) -> Float[Tensor, "N d"]:
        output = decoder(
            input_ids=tokens[0, batch.column].where(batch.there, 0),
            use_cache=False,
        )
        return cast(Tensor, output.last_hidden_state)[batch.own]

    again: Callable[[Rows], Tensor] = run
    if len(batches) > 1 and torch.is_grad_enabled():
        # Backward computes a batch again, so that only one at a time is in memory.
        again = partial(checkpoint, run, use_reentrant=False, preserve_rng_state=False)
    return _in_columns([again(batch) for batch in batches], batches, tree_mask)


def _in_columns(
    parts: Sequence[Float[Tensor, "_ d"]], batches: Sequence[Rows], tree_mask: TreeMask
) -> Float[Tensor, "1 T d"]:
    values = to_columns(parts, batches)[None]
    return values if tree_mask.merged is None else values[:, tree_mask.merged.kept]


def _each_token(output: Tensor, R: int, L: int) -> Float[Tensor, "R L D"]:
    """A layer's output with everything that it has for a token in the last dimension."""
    shape = list(output.shape)
    for place in range(len(shape) - 1):
        if shape[place : place + 2] == [R, L]:
            return output.movedim((place, place + 1), (0, 1)).flatten(2)
    raise ValueError(f"a layer's output has the shape {shape} for {R} rows of {L} tokens")


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
        self.merged: Merged | None = None
        """Which tokens the next forward computes, if not all that it writes."""

    def update(
        self,
        key_states: Float[Tensor, "1 H N d"],
        value_states: Float[Tensor, "1 H N d"],
        layer_idx: int,
        *_args: Any,
        **_others: Any,
    ) -> tuple[Float[Tensor, "1 H T d"], Float[Tensor, "1 H T d"]]:
        """Writes the new keys and values; returns those of the whole row, zeros where unset.

        The first are the trunks', which begin the row and see nothing else: it returns them alone.
        """
        new = in_autocast(key_states), in_autocast(value_states)
        if self.merged is not None:
            keys, values = (x.index_select(2, self.merged.spread) for x in new)
            new = keys, values
        if layer_idx not in self._kept:
            keys, values = (x.new_zeros(*x.shape[:2], self._columns, x.shape[3]) for x in new)
            self._kept[layer_idx] = keys, values
            returned = new
        else:
            returned = keys, values = self._kept[layer_idx]
        keys[:, :, self.writes_to], values[:, :, self.writes_to] = new
        return returned

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002
        """Returns 0. Some architectures ask for it, but positions are passed explicitly."""
        return 0
