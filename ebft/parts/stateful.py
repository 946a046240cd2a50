"""Parts that remember something from one step to the next, and their states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Stateful(Protocol):
    """A built part, of whatever kind, that remembers something from one step to the next.

    With these two methods it is resumed exactly. `state_dict` is made of dicts (keys: text or whole
    numbers), lists, tuples, tensors, numbers, text, True, False and None; its tensors may be those
    in use. A part that holds other parts passes theirs on (`part_states`, `load_part_states`).
    """

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on as the part that `state_dict` was called on would have."""
        ...


def part_states(parts: Sequence[object]) -> dict[str, Any]:
    """The states of those parts that have one, by their place."""
    return {str(i): part.state_dict() for i, part in enumerate(parts) if isinstance(part, Stateful)}


def load_part_states(parts: Sequence[object], states: Mapping[str, Any]) -> None:
    """Gives parts the states that `part_states` read off their likes.

    Raises `ValueError` if other parts have state now.
    """
    stateful = {str(i): part for i, part in enumerate(parts) if isinstance(part, Stateful)}
    if stateful.keys() != states.keys():
        raise ValueError(
            f"parts {sorted(stateful)} have state, and it is given for {sorted(states)}"
        )
    for place, part in stateful.items():
        part.load_state_dict(states[place])
