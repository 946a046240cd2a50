"""pydantic's `ValidationError` → one line for every mistake in a recipe."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ebft.config.overrides import Override
from ebft.mistakes import UNKNOWN_KEY, WORDS, suggest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

SHOWN = 60
"""Characters of a value that a message shows."""
LIST_TYPES = {"tuple_type", "list_type"}
SECTION_TYPES = {"model_type", "dict_type", "model_attributes_type", "dataclass_type"}


def explain(error: ValidationError, source: Path, overrides: Sequence[Override]) -> list[str]:
    """`recipes/x.yaml: sampler.n = 0: must be greater than or equal to 1`, one a mistake.

    A key that an override has set is said to come from where that is.
    """
    return [
        f"{_origin(detail, source, overrides)}: {_line(detail)}"
        for detail in error.errors(include_url=False)
    ]


def _line(detail: ErrorDetails) -> str:
    key = ".".join(map(str, detail["loc"]))
    if detail["type"] == "missing":
        return f"{key}: missing; it has no default"
    return f"{key} = {_shown(detail['input'])}: {_what(detail)}"


def _what(detail: ErrorDetails) -> str:
    kind, message = detail["type"], detail["msg"]
    if kind in SECTION_TYPES:
        return "must be a section: keys and values"
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    if kind == "invalid_key":
        return "YAML takes on, off, yes and no for true and false: put the key in quotes"
    if kind in LIST_TYPES:
        return f"must be a list: [{_shown(detail['input'])}]"
    if kind == "path_type":
        return "must be a path"
    message = re.sub(r"^Input should be|^Value should be", "must be", message)
    message = re.sub(r"^Input should", "must", message)
    message = re.sub(r"^\w+ should have at least (\d+) items?.*", r"must have \1 or more", message)
    if kind == "literal_error" and isinstance(detail["input"], str):
        message += _closest(detail["input"], message)
    return message


def _closest(value: str, message: str) -> str:
    hint = suggest(value, re.findall(r"'([^']*)'", message))
    return hint if "did you mean" in hint else ""


def _origin(detail: ErrorDetails, source: Path, overrides: Sequence[Override]) -> str:
    key = tuple(map(str, detail["loc"]))
    for override in reversed(overrides):
        set_it = key[: len(override.keys)] == override.keys
        made_it = detail["type"] == UNKNOWN_KEY and override.keys[: len(key)] == key
        if not override.delete and (set_it or made_it):
            return override.origin
    return str(source)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) and value else repr(value)
    if isinstance(value, bool) or value is None:
        text = WORDS[value]
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
