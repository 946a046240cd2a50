"""`Options`: the base of every section of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    ModelWrapValidatorHandler,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema

from ebft.errors import suggest_keys


def strict(schema: Any) -> Any:
    """Returns the schema with strict numbers and booleans."""
    match schema:
        case {"type": str(kind), **more}:
            kept = {key: more.pop(key) for key in ("default", "metadata") if key in more}
            inner = {key: strict(value) for key, value in more.items()}
            own = {"strict": True} if kind in ("int", "float", "bool") else {}
            return {"type": kind, **inner, **kept, **own}
        case dict():
            return {key: strict(value) for key, value in schema.items()}
        case list() | tuple():
            return type(schema)(map(strict, schema))
        case _:
            return schema


class Options(BaseModel):
    """Options of a recipe section: immutable, and a key that is not a field is an error.

    Numbers and booleans are strict: true is not 1, 1.0 is not an integer, and "1" is not a number.
    An integer is accepted for a float, a list for a tuple, and a text for a path.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[BaseModel], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        # pydantic's own `strict` would refuse lists for tuples too, and texts for paths.
        schema: CoreSchema = strict(handler(source))
        return schema

    @model_validator(mode="wrap")
    @classmethod
    def _suggest_keys(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            raise suggest_keys(error, cls.model_fields) from None

    @field_validator("*")
    @classmethod
    def _expand_home(cls, value: Any) -> Any:
        return expand_home(value) if isinstance(value, Path) else value


def expand_home(path: Path) -> Path:
    """Returns the path with a leading `~` expanded, because no shell expands recipes.

    Raises `ValueError` if there is no such home.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"there is no home {path.parts[0]}; give the whole path") from error
