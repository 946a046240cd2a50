"""The arguments of a class that is not ebft's own, held to what its signature says of them.

Many such classes check little: `amsgrad: "false"` is true to Python, a momentum of `.nan` is a
number, and a warm-up of 0.03 steps is none.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from math import isfinite
from typing import Any

from pydantic import ConfigDict, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter
from pydantic import ValidationError as Invalid
from pydantic_core import SchemaValidator

from ebft.errors import Mistake
from ebft.options import strict

LIKE_DEFAULTS = {bool: bool, int: float, float: float}
"""What a parameter without an annotation takes, by the type of its default."""
NAMED = {"bool": bool, "int": int, "float": float, "str": str, "Iterable[int]": list[int]}
"""Annotations that are known where others of the same signature cannot be looked up."""
INSTANCE = "is_instance_of"
"""pydantic's error for a class whose objects no recipe can write, such as a tensor."""


def check_argument(key: str, value: Any, parameter: inspect.Parameter) -> list[Mistake]:
    """What is wrong with a recipe's value for a parameter; nothing if its type is not known.

    Types are as strict as those of `Options`: true is no number, and "1" none either. Null is left
    to whoever is called.
    """
    if not _is_finite(value):
        return [Mistake((key,), value, "must be a finite number")]
    kind = parameter.annotation
    if kind is parameter.empty:
        kind = LIKE_DEFAULTS.get(type(parameter.default))
    if isinstance(kind, str):
        kind = NAMED.get(kind.removesuffix(" | None"))
    if kind is None or value is None:
        return []
    try:
        adapter = TypeAdapter(kind, config=ConfigDict(arbitrary_types_allowed=True))
        validator = SchemaValidator(strict(adapter.core_schema))
    except (PydanticSchemaGenerationError, PydanticUserError, NameError):
        return []
    try:
        validated = validator.validate_python(value)
        if isinstance(validated, Iterator):  # of `Iterable[int]`: validated when it is read
            list(validated)
    except Invalid as error:
        details = error.errors(include_url=False)
        if any(it["type"] == "missing" for it in details):  # of a tuple
            return [Mistake((key,), value, f"has too few values, {len(value)}")]
        writable = [it for it in details if it["type"] != INSTANCE] or details
        return [Mistake((key, *it["loc"]), it["input"], it["msg"], it["type"]) for it in writable]
    return []


def _is_finite(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or isfinite(value)
