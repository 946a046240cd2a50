"""Parts that keep state from one step to the next, and saving and loading it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable


# torch.distributed.checkpoint has the same protocol, but importing it takes a second, and commands
# that never load torch import this module.
@runtime_checkable
class Stateful(Protocol):
    """A built part of any kind that keeps state from one step to the next.

    These two methods make it resume exactly. `state_dict` may contain dicts (with str or int keys),
    lists, tuples, tensors, numbers, text, True, False and None; its tensors need not be copies. A
    part that contains other parts includes their states (`part_states`, `load_part_states`).
    """

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state, so that the part continues as the saved one would have."""
        ...


def part_states(parts: Sequence[object]) -> dict[str, Any]:
    """Returns the states of those parts that have one, by their index."""
    return {str(i): part.state_dict() for i, part in enumerate(parts) if isinstance(part, Stateful)}


def load_part_states(parts: Sequence[object], states: Mapping[str, Any]) -> None:
    """Loads states that `part_states` returned for the same parts.

    Raises `ValueError` if other parts have state than those that were saved.
    """
    stateful = {str(i): part for i, part in enumerate(parts) if isinstance(part, Stateful)}
    if stateful.keys() != states.keys():
        raise ValueError(
            f"parts {sorted(stateful)} have state, but it was saved for {sorted(states)}"
        )
    for place, part in stateful.items():
        part.load_state_dict(states[place])
