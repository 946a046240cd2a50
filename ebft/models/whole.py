"""`whole`: computing with a policy whose weights may be divided over processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from torch import nn

Result = TypeVar("Result")


class Root(nn.Module):
    """What FSDP gathers the weights for: its forward is any function that computes with the model.

    `keep` gathers the weights until it is told otherwise.
    """

    def __init__(self, model: nn.Module, keep: Callable[[Root, bool], None]) -> None:
        super().__init__()
        self.model, self.keep = model, keep

    def forward(self, function: Callable[[], Result]) -> Result:
        return function()


roots: WeakKeyDictionary[nn.Module, Root] = WeakKeyDictionary()
"""The models that `models.shard` has divided, each with what gathers its weights."""
twins: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()
"""Models around another's weights, each with the other: a policy without its adapter."""


def whole(model: nn.Module, function: Callable[..., Result], *arguments: Any) -> Result:
    """`function(*arguments)` with the model's weights at hand; differentiable.

    All processes must do it alike, with as many forwards of the model's layers inside. A model
    that is not divided has its weights at hand anyway.
    """
    root = _root(model)
    if root is None:
        return function(*arguments)
    result: Result = root(lambda: function(*arguments))
    return result


@contextmanager
def kept_whole(model: nn.Module) -> Iterator[None]:
    """Within it every process has all the weights, and need not compute alike. Not to train."""
    root = _root(model)
    if root is None:
        yield
        return
    root.keep(root, True)
    try:
        yield
    finally:
        root.keep(root, False)


def _root(model: nn.Module) -> Root | None:
    return roots.get(twins.get(model, model))
