"""Which part of a recipe an exception comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

from ebft.parts import Part
from ebft.plugins import Registry


def blame(
    error: BaseException,
    built: Mapping[str, Any],
    parts: Mapping[str, Part],
    registry: Registry,
    when: str,
) -> str:
    """One line: the part in whose code the error arose, its plug-in, and when.

    `built` and `parts` are the parts as the loop calls them and as the recipe names them, by key.
    """
    key = find_part(error, built)
    if key is None:
        return f"ebft: this was raised {when}, in no part of the recipe"
    part = type(parts[key])
    name, origin = registry.name_of(part), registry.origin(part)
    return f"ebft: this was raised {when}, in {key} = {name} ({origin})"


def find_part(error: BaseException, built: Mapping[str, Any]) -> str | None:
    """The key of the part in whose methods the error arose; None if it was in no part's.

    Of parts that call each other it is the outermost, the one that the recipe names.
    """
    for owner in _owners(error.__traceback__):
        for key, part in built.items():
            if owner is part:
                return key
    return None


def _owners(traceback: TracebackType | None) -> Iterator[Any]:
    """The `self` of each method that the error went through, outermost first."""
    while traceback is not None:
        yield traceback.tb_frame.f_locals.get("self")
        traceback = traceback.tb_next
