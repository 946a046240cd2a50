"""`Options`: the base of every section of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    field_validator,
    model_validator,
)

from ebft.mistakes import suggest_keys


class Options(BaseModel):
    """Options of a recipe section: immutable, and a key that is not a field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)

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
    """The path with a `~` in front spelt out: no shell has seen what a recipe says.

    Raises `ValueError` if there is no such home.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"there is no home {path.parts[0]}; give the whole path") from error
