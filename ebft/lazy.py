"""torch and transformers, imported when something of them is first used.

Importing them takes seconds, and a part's options need neither. A file that a command imports to
list or validate parts takes `torch`, `transformers` and `Tensor` from here instead; otherwise it is
written as any other. It must not use them while it is imported: as a base class, as a default
value, or as a decorator (`no_grad` is one that may be used).
"""

from __future__ import annotations

from functools import wraps
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch as torch
    import transformers as transformers
    from torch import Tensor as Tensor

P = ParamSpec("P")
R = TypeVar("R")


class LazyModule(ModuleType):
    """Stands for a module, which is imported when one of its names is first used."""

    def __getattr__(self, name: str) -> Any:
        value = getattr(import_module(self.__name__), name)
        setattr(self, name, value)  # the next time, Python finds it without calling this method
        return value


class LazyTensor(type):
    """The class of `Tensor`, whose instances are those of `torch.Tensor`."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, torch.Tensor)


if not TYPE_CHECKING:
    torch = LazyModule("torch")
    transformers = LazyModule("transformers")

    class Tensor(metaclass=LazyTensor):
        """Stands for `torch.Tensor` in annotations and in `isinstance`."""


def no_grad(function: Callable[P, R]) -> Callable[P, R]:
    """The decorator `torch.no_grad()`: within the function, no gradients are computed."""

    @wraps(function)
    def without_gradients(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.no_grad():
            return function(*args, **kwargs)

    return without_gradients
