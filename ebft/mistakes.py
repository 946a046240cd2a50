"""Validation errors with the path of their key, and "did you mean" suggestions.

If a validator raises one of these, pydantic prepends the path of the section to its keys.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

UNKNOWN_KEY = "unknown_key"
"""The error type of a key that is not an option."""
WORDS = {True: "true", False: "false", None: "null"}
"""How a recipe writes these values."""
LISTED = 25
"""Most names that a message lists."""


class Mistake(NamedTuple):
    """A mistake in the value at a key; `kind` is pydantic's error type."""

    key: tuple[str | int, ...]
    value: Any
    message: str
    kind: str = "mistake"


def validation_error(title: str, mistakes: Iterable[Mistake]) -> ValidationError:
    """Returns one error for all mistakes in a section called `title`."""
    return ValidationError.from_exception_data(
        title,
        [
            InitErrorDetails(
                type=PydanticCustomError(mistake.kind, mistake.message),
                loc=mistake.key,
                input=mistake.value,
            )
            for mistake in mistakes
        ],
    )


def unknown_key(key: str, value: Any, known: Iterable[str]) -> Mistake:
    """Returns the mistake of a key that is not in `known`."""
    return Mistake((key,), value, f"unknown key{suggest(key, known)}", UNKNOWN_KEY)


def suggest(word: str, known: Iterable[str]) -> str:
    """Returns `; did you mean 'x'?`, or the known words if none is similar and the list is short.

    >>> suggest("stirde", ["start", "stride"])
    "; did you mean 'stride'?"
    >>> suggest("x", ["start", "stride"])
    '; there are: start, stride'
    """
    known = sorted(known)
    if close := get_close_matches(word, known, n=1):
        return f"; did you mean {close[0]!r}?"
    if not known:
        return "; there are none"
    return f"; there are: {', '.join(known)}" if len(known) <= LISTED else ""


def suggest_keys(error: ValidationError, known: Iterable[str]) -> ValidationError:
    """Returns the same error, with a suggestion for each unknown key of this section."""
    known = list(known)
    mistakes = []
    for detail in error.errors(include_url=False):
        key, value = detail["loc"], detail["input"]
        if detail["type"] == "extra_forbidden" and len(key) == 1:
            mistakes.append(unknown_key(str(key[0]), value, known))
        else:
            mistakes.append(Mistake(key, value, detail["msg"], detail["type"]))
    return validation_error(error.title, mistakes)
