"""`whole`: computing with a policy whose weights may be sharded over processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import nn

Result = TypeVar("Result")


class Root(nn.Module):
    """FSDP's root module: its forward calls any function that computes with the model, with the
    weights gathered. `keep` keeps them gathered between forwards, or ends that; `kept` says whether
    they are.
    """

    def __init__(self, model: nn.Module, keep: Callable[[Root, bool], None]) -> None:
        super().__init__()
        self.model, self.keep, self.kept = model, keep, False

    def forward(self, function: Callable[[], Result]) -> Result:
        before = _computing.set(self)
        try:
            return function()
        finally:
            _computing.reset(before)


_computing: ContextVar[Root | None] = ContextVar("_computing", default=None)
"""The root whose forward is running."""


roots: WeakKeyDictionary[nn.Module, Root] = WeakKeyDictionary()
"""The root of each model that `models.shard` has sharded."""
twins: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()
"""Maps a model that shares another's weights to the other: a policy without its adapter."""


def whole(model: nn.Module, function: Callable[..., Result], *arguments: Any) -> Result:
    """Returns `function(*arguments)`, called with the model's weights gathered; differentiable.

    All processes must call it, with the same number of forwards of the model's layers inside. For a
    model that is not sharded, this is a plain call.
    """
    root = _root(model)
    if root is None:
        return function(*arguments)
    result: Result = root(lambda: function(*arguments))
    return result


@contextmanager
def kept_whole(*models: nn.Module) -> Iterator[None]:
    """Context manager in which every process has all weights of these models, or of all models that
    are sharded, and may compute independently. Not for training."""
    named = [_root(model) for model in models] if models else [*roots.values()]
    # Contexts may be nested.
    kept = [root for root in named if root is not None and not root.kept]
    for root in kept:
        root.keep(root, True)
        root.kept = True
    try:
        yield
    finally:
        for root in kept:
            root.keep(root, False)
            root.kept = False


def most_forwards(forwards: int) -> int:
    """Returns how many forwards of a model's layers to compute, inside `whole`: the most that any
    process has to, if weights are gathered for each forward; else `forwards`."""
    root = _computing.get()
    if root is None or root.kept:
        return forwards
    most = torch.tensor(forwards, device=next(root.model.parameters()).device)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return int(most)


def is_sharded(model: nn.Module) -> bool:
    """Whether the model's weights are sharded over processes."""
    return _root(model) is not None


def _root(model: nn.Module) -> Root | None:
    return roots.get(twins.get(model, model))
