"""Types of options in readable form: `int ≥ 1`, `'last' | 'mean'`, `list of part`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from ebft.errors import WORDS

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def field_type(field: FieldInfo) -> str:
    """The type of an option with its bounds."""
    return _bounded(type_name(field.annotation), field.metadata)


def type_name(annotation: Any) -> str:
    """A type annotation in terms of YAML: null for None, list for tuple.

    >>> type_name(tuple[Literal["last", "mean"], ...] | None)
    'list of last | mean | null'
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _bounded(type_name(arguments[0]), arguments[1:])
    if origin is Literal:
        return " | ".join(map(yaml_value, arguments))
    if origin in (Union, UnionType):
        return " | ".join(map(type_name, arguments))
    if origin in (dict, Mapping):
        return "mapping"
    if origin in (tuple, list):
        return f"list of {type_name(arguments[0])}"
    if annotation is NoneType:
        return "null"
    name: str = getattr(annotation, "__name__", str(annotation))
    return {"Path": "path", "Part": "part"}.get(name, name)


def nested_options(annotation: Any) -> Iterator[type[BaseModel]]:
    """The option classes in a type annotation, except parts, which `_component_` selects."""
    from ebft.parts.part import Part

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not issubclass(annotation, Part):
            yield annotation
        return
    for argument in get_args(annotation):
        yield from nested_options(argument)


def yaml_value(value: Any) -> str:
    """A default value as YAML on one line.

    >>> yaml_value({"languages": ("de", "fr"), "stop": "\\n"})
    '{languages: [de, fr], stop: "\\\\n"}'
    """
    if isinstance(value, bool) or value is None:
        return WORDS[value]
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(yaml_value, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {yaml_value(item)}' for key, item in value.items())}}}"
    return json.dumps(value) if isinstance(value, str) and "\n" in value else str(value)


def _bounded(name: str, metadata: Iterable[Any]) -> str:
    bounds: list[str] = []
    for item in metadata:
        # pydantic keeps its own constraints in another FieldInfo's metadata.
        for bound in getattr(item, "metadata", [item]):
            bounds += [
                f"{sign} {getattr(bound, key)}"
                for key, sign in SIGNS.items()
                if hasattr(bound, key)
            ]
    return " ".join([name, *[", ".join(bounds)] * bool(bounds)])
