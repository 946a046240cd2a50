"""`Component`: a class or function that a recipe names by its dotted path, with its arguments.

For the pieces that are not ebft's own: optimizers of torch, schedulers and metric loggers of
torchtune. What they accept is read off their signature.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

from omegaconf import OmegaConf
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from ebft.errors import UserError
from ebft.mistakes import Mistake, suggest, unknown_key, validation_error


@dataclass(frozen=True, slots=True)
class Component:
    """A recipe's `{_component_: dotted.path, **arguments}`; the path exists and takes them."""

    path: str
    arguments: Mapping[str, Any]

    def bind(self, *args: Any, **more: Any) -> None:
        """Holds what `instantiate` would call it with to its signature, without calling it.

        Raises `UserError` for arguments that are missing or given twice.
        """
        try:
            if (signature := _signature(resolve_name(self.path))) is not None:
                signature.bind(*args, **self.arguments, **more)
        except TypeError as error:
            raise UserError(f"{self.call()}: {error}") from error

    def call(self) -> str:
        """`torch.optim.AdamW(lr=0.1)`, for messages."""
        given = ", ".join(f"{key}={value!r}" for key, value in self.arguments.items())
        return f"{self.path}({given})"

    def instantiate(self, *args: Any, **more: Any) -> Any:
        """Calls it with `args`, then the recipe's arguments and `more`.

        Raises `UserError` for arguments that are missing, given twice, or that it refuses, for a
        package that it misses and a file that it cannot have.
        """
        from torchtune.config import instantiate

        # torchtune would let `more` win over what the recipe says, in silence.
        if twice := self.arguments.keys() & more.keys():
            raise UserError(
                f"{self.path}: {', '.join(sorted(twice))} is set by ebft; take it out of the recipe"
            )
        self.bind(*args, **more)
        section = OmegaConf.create({"_component_": self.path, **self.arguments})
        try:
            return instantiate(section, *args, **more)
        except (TypeError, ValueError, ImportError, OSError) as error:
            raise UserError(f"{self.call()}: {error}") from error

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[Component], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(_validate)


def _validate(section: Any) -> Component:
    if isinstance(section, Component):
        return section
    if not isinstance(section, Mapping) or not isinstance(section.get("_component_"), str):
        raise ValueError("needs `_component_: dotted.path` and its arguments beside it")
    arguments = dict(section)
    path = arguments.pop("_component_")
    signature = _signature(_find(path))
    if signature is not None and (mistakes := _unknown(arguments, signature)):
        raise validation_error(path, mistakes)
    return Component(path, arguments)


def _find(path: str) -> Callable[..., Any]:
    """What the path names; a `ValidationError` at `_component_` if there is no such callable."""
    try:
        found = resolve_name(path)
    except AttributeError as error:
        problem = f"cannot be imported: {error}{suggest(str(error.name), _public(error.obj))}"
    except (ImportError, ValueError) as error:
        problem = f"cannot be imported: {error}"
        if "." not in path:
            problem += "; give a dotted path, such as torch.optim.AdamW"
    else:
        if callable(found):
            return found  # type: ignore[no-any-return]
        problem = f"is a {type(found).__name__}, not a class or function"
    raise validation_error("component", [Mistake(("_component_",), path, problem)])


def _public(module: object) -> list[str]:
    return [name for name in dir(module) if not name.startswith("_")]


def _signature(found: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(found)
    except ValueError:  # some callables written in C have none
        return None


def _unknown(arguments: Mapping[str, Any], signature: inspect.Signature) -> list[Mistake]:
    parameters = signature.parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return []
    known = [
        parameter.name
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    return [unknown_key(key, value, known) for key, value in arguments.items() if key not in known]
