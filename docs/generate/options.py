"""Options models as rows of a table: key, type, default, description."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, get_args, get_origin

from docs.generate.markdown import code
from ebft.cli.types import field_type, yaml_value
from ebft.config.component import Component
from ebft.options import Options
from ebft.parts.part import Part, PartOf

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    Row = tuple[str, str, str, str]


def option_rows(options: type[Options]) -> Iterator[Row]:
    """Every option that is a value; those of a section of its own are below a dotted key."""
    for key, field in options.model_fields.items():
        if section := section_of(field):
            prefix = f"{key}.0" if is_list(field) else f"{key}.NAME" if is_mapping(field) else key
            for inner, kind, default, description in option_rows(section):
                yield code(f"{prefix}.{inner.strip('`')}"), kind, default, description
        else:
            yield code(key), code(field_type(field)), default_of(field), field.description or ""


def default_of(field: FieldInfo) -> str:
    """The default as a recipe would say it, in words if there is none."""
    if field.is_required():
        return "*required*"
    default = yaml_value(field.get_default(call_default_factory=True))
    return code(default) if default else "*empty*"


def section_of(field: FieldInfo) -> type[Options] | None:
    """The options model that a field holds, itself or optionally; None for a plain value."""
    for kind in get_args(field.annotation) or [field.annotation]:
        if isinstance(kind, type) and issubclass(kind, Options) and not issubclass(kind, Part):
            return kind
    return None


def is_list(field: FieldInfo) -> bool:
    """Whether the field holds several of what it holds."""
    return get_origin(field.annotation) is tuple


def is_mapping(field: FieldInfo) -> bool:
    """Whether the field holds what it holds by names that the recipe gives."""
    return get_origin(field.annotation) is dict


def kind_of(field: FieldInfo) -> str | None:
    """The kind of part that a field holds, one or a list of them."""
    return next(_kinds(field.annotation, *field.metadata), None)


def is_component(field: FieldInfo) -> bool:
    """Whether a dotted path is what the field holds, one or a list of them."""
    held = (field.annotation, *get_args(field.annotation))
    return any(isinstance(it, type) and issubclass(it, Component) for it in held)


def _kinds(*items: Any) -> Iterator[str]:
    for item in items:
        if isinstance(item, PartOf):
            yield item.kind
        yield from _kinds(*get_args(item))
