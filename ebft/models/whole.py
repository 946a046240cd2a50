"""`whole`: computing with a policy whose weights may be sharded over processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from torch import nn

Result = TypeVar("Result")


class Root(nn.Module):
    """FSDP's root module: its forward calls any function that computes with the model, with the
    weights gathered. `keep` keeps them gathered between forwards, or ends that.
    """

    def __init__(self, model: nn.Module, keep: Callable[[Root, bool], None]) -> None:
        super().__init__()
        self.model, self.keep = model, keep

    def forward(self, function: Callable[[], Result]) -> Result:
        return function()


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
def kept_whole() -> Iterator[None]:
    """Context manager in which every process has all weights of the models that are sharded, and
    may compute independently. Not for training."""
    kept = list(roots.values())
    for root in kept:
        root.keep(root, True)
    try:
        yield
    finally:
        for root in kept:
            root.keep(root, False)


def is_sharded(model: nn.Module) -> bool:
    """Whether the model's weights are sharded over processes."""
    return _root(model) is not None


def _root(model: nn.Module) -> Root | None:
    return roots.get(twins.get(model, model))
