"""`Component`: a class that a recipe names by its dotted path, with its arguments.

It is used for classes of other packages: optimizers, schedules and metric loggers. Their arguments
are checked against their signature. An object that is not of the kind that its section asks for is
never called.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pkgutil import resolve_name
from types import MappingProxyType
from typing import Any, ClassVar, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from ebft.config.arguments import check_argument
from ebft.config.usual import Usual
from ebft.errors import Mistake, UserError, first_line, unknown_key, validation_error
from ebft.parts.named import find_named, importable_in
from ebft.parts.packages import missing


@dataclass(frozen=True, slots=True)
class Component:
    """A recipe's `{_component_: dotted.path, **arguments}`.

    Each subclass is a kind of object, which a section asks for.
    """

    path: str
    arguments: Mapping[str, Any]

    wanted: ClassVar[str] = "a class"
    """The kind of object that the path must name, for messages."""
    instead: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """For paths into an optional package, the path of what does the same without it."""
    usual: ClassVar[Mapping[str, Usual]] = MappingProxyType({})
    """For paths of this kind, the arguments that are accepted without importing the class."""

    @classmethod
    def accepts(cls, found: object) -> bool:
        """Whether `found` is of this kind. It is not called."""
        return isinstance(found, type)

    def is_usual(self) -> bool:
        """Whether path and arguments are known to be right, so that the class is not imported."""
        known = self.usual.get(self.path)
        return known is not None and known.accepts(self.arguments)

    def bind(self, *args: Any, **more: Any) -> None:
        """Checks the arguments of `instantiate` against the signature, without calling it.

        Raises `UserError` for arguments that are missing or given twice.
        """
        try:
            if (signature := _signature(resolve_name(self.path))) is not None:
                signature.bind(*args, **self.arguments, **more)
        except TypeError as error:
            raise UserError(f"{self.call()}: {error}") from error

    def call(self) -> str:
        """Returns the call as text, `torch.optim.AdamW(lr=0.1)`, for messages."""
        given = ", ".join(f"{key}={value!r}" for key, value in self.arguments.items())
        return f"{self.path}({given})"

    def instantiate(self, *args: Any, **more: Any) -> Any:
        """Calls the object with `args`, the recipe's arguments and `more`, and returns the result.

        Raises `UserError` for arguments that are missing, given twice or refused, for a missing
        package, and for a file that cannot be opened.
        """
        # Clearer than Python's TypeError for a keyword that is given twice.
        if twice := self.arguments.keys() & more.keys():
            raise UserError(
                f"{self.path}: {', '.join(sorted(twice))} is set by ebft; take it out of the recipe"
            )
        self.bind(*args, **more)
        try:
            return resolve_name(self.path)(*args, **self.arguments, **more)
        except (TypeError, ValueError, ImportError, OSError) as error:
            raise UserError(f"{self.call()}: {first_line(error)}") from error

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[Component], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            lambda section, info: cls._validate(section, importable_in(info.context))
        )

    @classmethod
    def _validate(cls, section: Any, importable: Collection[str] | None) -> Self:
        if isinstance(section, cls):
            return section
        if not isinstance(section, Mapping) or not isinstance(section.get("_component_"), str):
            raise ValueError("needs `_component_: dotted.path` and its arguments beside it")
        arguments = dict(section)
        path = arguments.pop("_component_")
        component = cls(path, arguments)
        if component.is_usual():
            return component
        signature = _signature(cls._find(path, importable))
        if signature is not None and (mistakes := _mistakes(arguments, signature)):
            raise validation_error(path, mistakes)
        return component

    @classmethod
    def _find(cls, path: str, importable: Collection[str] | None) -> Callable[..., Any]:
        """Returns the object at the path.

        Raises `ValidationError` at `_component_` if it is not of the kind."""
        try:
            if "." not in path:
                raise ValueError("give a dotted path, such as torch.optim.AdamW")
            if path in cls.instead and (lacking := missing(path.partition(".")[0])):
                raise ValueError(f"{lacking}, or write {cls.instead[path]}, which does the same")
            found: Callable[..., Any] = find_named(path, importable)
            if not cls.accepts(found):
                raise ValueError(f"must be {cls.wanted}")
        except ValueError as error:
            mistake = Mistake(("_component_",), path, str(error))
            raise validation_error("component", [mistake]) from error
        return found


def _signature(found: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(found, eval_str=True)
    except ValueError:  # some callables written in C have none
        return None
    except Exception:  # of an annotation that is there for type checkers alone
        return inspect.signature(found)


def _mistakes(arguments: Mapping[str, Any], signature: inspect.Signature) -> list[Mistake]:
    parameters = signature.parameters
    takes_any = any(it.kind is it.VAR_KEYWORD for it in parameters.values())
    known = [
        name
        for name, it in parameters.items()
        if it.kind in (it.POSITIONAL_OR_KEYWORD, it.KEYWORD_ONLY)
    ]
    found = []
    for key, value in arguments.items():
        if key in known:
            found += check_argument(key, value, parameters[key])
        elif not takes_any:
            found.append(unknown_key(key, value, known))
    return found
