"""pydantic's `ValidationError` → one line for every mistake in a recipe."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ebft.config.overrides import Override
from ebft.errors import WORDS, suggest
from ebft.printable import cut_short

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

SHOWN = 60
"""Characters of a value that a message shows."""
LIST_TYPES = {"tuple_type", "list_type"}
SECTION_TYPES = {"model_type", "dict_type", "model_attributes_type", "dataclass_type"}
TEXT_TYPES = {"string_type": "text", "path_type": "a path"}
ANY_OF = "any_of"
"""The error type of a value that is none of several types."""


def explain(
    error: ValidationError, tree: Mapping[str, Any], source: Path, overrides: Sequence[Override]
) -> list[str]:
    """Returns one line per mistake: `recipes/x.yaml: sampler.n = 0: must be greater than or …`.

    `tree` is the validated mapping. For a key that an override has set, the line names the
    override's origin instead of the file.
    """
    return [
        f"{_origin(detail, source, overrides)}: {_line(detail)}"
        for detail in _one_a_value(error.errors(include_url=False), tree)
    ]


def _one_a_value(
    details: Iterable[ErrorDetails], tree: Mapping[str, Any]
) -> Iterator[ErrorDetails]:
    """Yields one error per value, with the keys of the recipe.

    For a union, pydantic gives one error per type, with the types between the keys."""
    for key, group in groupby(details, key=lambda detail: _key(detail, tree)):
        same = list(group)
        if same[0]["loc"] != key and len(same) > 1:
            says = " or ".join(_what(one).partition("; ")[0] for one in same)
            says = says.replace(" or must be ", " or ")
            same = [{"type": ANY_OF, "loc": key, "msg": says, "input": same[0]["input"]}]
        for detail in same:
            yield {**detail, "loc": key}


def _key(detail: ErrorDetails, tree: Mapping[str, Any]) -> tuple[int | str, ...]:
    """Returns the elements of `loc` that are keys of the recipe, or could be."""
    node: Any = tree
    found: list[int | str] = []
    for part in detail["loc"]:
        try:
            node = node[part]
        except (LookupError, TypeError):  # a type, a missing key, or pydantic's "[key]"
            if not (isinstance(node, Mapping) or part == "[key]"):
                continue
        found.append(part)
    return tuple(found)


def _line(detail: ErrorDetails) -> str:
    *above, last = map(str, detail["loc"])
    if last == "[key]":
        return f"{'.'.join(above[:-1])}: the key {_shown(detail['input'])}: {_what(detail)}"
    key = ".".join([*above, last])
    if detail["type"] == "missing":
        return f"{key}: missing; it has no default"
    return f"{key} = {_shown(detail['input'])}: {_what(detail)}"


def _what(detail: ErrorDetails) -> str:
    kind, message, value = detail["type"], detail["msg"], detail["input"]
    if kind == ANY_OF:
        return message
    if kind in SECTION_TYPES:
        return "must be a section: keys and values"
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    if kind == "invalid_key":
        return "YAML reads on, off, yes and no as true and false: put the key in quotes"
    if kind in LIST_TYPES:
        return f"must be a list: [{_shown(value)}]"
    if kind in TEXT_TYPES:
        return f"must be {TEXT_TYPES[kind]}{_quotes(value)}"
    if kind == "bool_type":
        return "must be true or false"
    message = re.sub(r"^Input should be|^Value should be", "must be", message)
    message = re.sub(r"^Input should", "must", message)
    message = re.sub(r"^\w+ should have at least (\d+) items?.*", r"must have \1 or more", message)
    if kind in ("int_type", "float_type"):
        message += _as_number(value, kind)
    if kind == "literal_error":
        is_text = isinstance(value, str)
        message += _closest(value, message) if is_text else _quotes(value)
    return message


def _quotes(value: Any) -> str:
    """Returns which type YAML has read instead of a text, and how to write the text."""
    match value:
        case bool():
            taken = "on, off, yes and no as true and false"
        case int() | float():
            taken = "digits, 1e5, 1_000 and 12:30 as numbers"
        case None:
            return "; if the text is meant, put it in quotes"
        case Mapping():
            taken = "braces, and a colon before a space, as keys and values"
        case _:
            taken = "brackets and hyphens as lists"
    return f"; YAML reads {taken}: put it in quotes"


def _as_number(value: Any, kind: str) -> str:
    """Returns how to write a number that was given as another type."""
    if isinstance(value, float) and value.is_integer():
        return f"; write {value:.0f}"
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return ""
        if kind == "float_type" or number.is_integer():
            return "; it is in quotes, which make it a text: remove them"
    return ""


def _closest(value: str, message: str) -> str:
    hint = suggest(value, re.findall(r"'([^']*)'", message))
    return hint if "did you mean" in hint else ""


def _origin(detail: ErrorDetails, source: Path, overrides: Sequence[Override]) -> str:
    """The last override that set the value, or a value within it: a section is wrong as a whole
    because of what is in it."""
    key = tuple(map(str, detail["loc"]))
    for override in reversed(overrides):
        common = min(len(key), len(override.keys))
        if not override.delete and key[:common] == override.keys[:common]:
            return override.origin
    return str(source)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) and value else repr(value)
    if isinstance(value, bool) or value is None:
        text = WORDS[value]
    return cut_short(text, SHOWN)
