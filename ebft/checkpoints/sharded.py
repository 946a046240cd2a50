"""An optimizer's state in several processes: each has its own part of the large tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ebft.checkpoints.nested import Sharded

if TYPE_CHECKING:
    from ebft.training.parts import LoopParts


def set_apart(
    state: Mapping[str, Any], loop: LoopParts
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The state of one of several processes, with `Sharded` for what each has its own part of.

    Those are the optimizer's tensors that are divided as the weights are; they come by their names.
    """
    from ebft.models.shard import is_like, unsharded

    apart: dict[str, Tensor] = {}
    parameters = parameters_of(loop)

    def taken(number: int, key: str, value: Any) -> Any:
        if not is_like(parameters[number], value):
            return unsharded(value)
        apart[name := f"{number}.{key}"] = value
        return Sharded(name)

    optimizer = _with_each(state["optimizer"], taken)
    return {**unsharded({**state, "optimizer": None}), "optimizer": optimizer}, apart


def put_back(optimizer: Mapping[str, Any], loop: LoopParts, shards: Path) -> Mapping[str, Any]:
    """An optimizer's state with its tensors divided over the present processes as the weights are.

    Raises `ValueError` if what is `Sharded` in it is not in `shards`.
    """
    parameters = parameters_of(loop)
    apart = {
        value.name: parameters[number]
        for number, values in optimizer["state"].items()
        for value in values.values()
        if isinstance(value, Sharded)
    }
    if not apart and loop.processes.size == 1:
        return optimizer
    from ebft.checkpoints.shards import read_shards
    from ebft.models.shard import sharded_like

    read = read_shards(shards, like=apart) if apart else {}

    def placed(number: int, _key: str, value: Any) -> Any:
        if isinstance(value, Sharded):
            return read[value.name]
        return sharded_like(parameters[number], value)

    return _with_each(optimizer, placed)


def parameters_of(loop: LoopParts) -> dict[int, Tensor]:
    """The optimizer's parameters by the numbers that its state has for them."""
    return dict(enumerate(p for group in loop.optimizer.param_groups for p in group["params"]))


def _with_each(
    optimizer: Mapping[str, Any], change: Callable[[int, str, Any], Any]
) -> dict[str, Any]:
    """The optimizer's state with `change(number, key, value)` for every value of a parameter."""
    changed = {
        number: {key: change(number, key, value) for key, value in values.items()}
        for number, values in optimizer["state"].items()
    }
    return {**optimizer, "state": changed}
