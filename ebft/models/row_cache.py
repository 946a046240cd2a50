"""Decoding rows token by token, each with the cache that the architecture itself makes.

A cache may hold keys and values, recurrent states or both. It is only copied and indexed here.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import Cache

from ebft.models.decoder import decoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAMES = ("cache", "past_key_values", "cache_params")
"""What architectures call their cache, in the output and in the input; since transformers 5.24 it
is `cache` in most."""


class Caching(Enum):
    """How much of an architecture's cache is exact.

    `CONTINUED`: several tokens may follow a cache, so a document is computed once for all of its
    anchors. `PREFILLED`: only single tokens may follow, so each context is computed from its start.
    `NONE`: each token computes its whole row.
    """

    CONTINUED = "continued"
    PREFILLED = "prefilled"
    NONE = "none"


_known: WeakKeyDictionary[nn.Module, Caching] = WeakKeyDictionary()


def caching(model: PreTrainedModel) -> Caching:
    """Returns how the model's cache may be used: what was set, else `PREFILLED`."""
    return _known.get(model, Caching.PREFILLED)


def set_caching(model: PreTrainedModel, how: Caching) -> None:
    """Says how the model's cache may be used (`models.layout` finds it out)."""
    _known[model] = how


@dataclass(frozen=True, slots=True)
class Decoded:
    """R rows of equal length that a decoder has read, without padding.

    `newest` are the last hidden states of their last tokens, which predict the next. `cache` is the
    decoder's own and `cache_name` its name there; None if it has none.
    """

    model: PreTrainedModel
    tokens: Int[Tensor, "R L"]
    newest: Float[Tensor, "R d"]
    cache: Cache | None = None
    cache_name: str = ""

    def read(self, more: Int[Tensor, "R k"]) -> Decoded:
        """Returns the rows with k more tokens. A cache is updated in place: the rows before must
        not be used any more."""
        tokens = torch.cat([self.tokens, more], 1)
        use_cache = caching(self.model) is not Caching.NONE
        inputs: dict[str, Any] = {"input_ids": more if self.cache is not None else tokens}
        if self.cache is not None:
            inputs[self.cache_name] = self.cache
        output = decoder(self.model)(**inputs, use_cache=use_cache)
        name = next((name for name in NAMES if isinstance(output.get(name), Cache)), "")
        cache = output[name] if name and use_cache else None
        return Decoded(self.model, tokens, output.last_hidden_state[:, -1], cache, name)

    def select(self, rows: Int[Tensor, " N"]) -> Decoded:
        """Returns copies of some of the rows, any of them as often as `rows` names it."""
        cache = copy.deepcopy(self.cache)
        if cache is not None:
            cache.reorder_cache(rows)
        return replace(self, tokens=self.tokens[rows], newest=self.newest[rows], cache=cache)


def nothing_read(model: PreTrainedModel, rows: int) -> Decoded:
    """Returns rows before their first token."""
    nothing = torch.zeros(rows, 0, device=model.device)
    return Decoded(model, nothing.long(), nothing)
