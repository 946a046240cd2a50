"""`Part`: the frozen options model that every interchangeable piece of ebft is.

A part *is* its options; `build` turns it into the object that the loop calls. A part without state
needs no more than fields and `__call__`:

    class Constant(ebft.Part):
        \"""Subtracts the same number from every reward.\"""

        value: float = Field(0.0, description="what is subtracted from each reward")

        def __call__(self, terms: Terms) -> Float[Tensor, "P n"]:
            return terms.reward() - self.value
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema

from ebft.mistakes import suggest_keys
from ebft.processes import ONE_PROCESS, Processes

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def _strict(schema: Any) -> Any:
    """The schema with every number and boolean in it strict."""
    match schema:
        case {"type": str(kind), **more}:
            kept = {key: more.pop(key) for key in ("default", "metadata") if key in more}
            inner = {key: _strict(value) for key, value in more.items()}
            strict = {"strict": True} if kind in ("int", "float", "bool") else {}
            return {"type": kind, **inner, **kept, **strict}
        case dict():
            return {key: _strict(value) for key, value in schema.items()}
        case list() | tuple():
            return type(schema)(map(_strict, schema))
        case _:
            return schema


class Options(BaseModel):
    """Options of a recipe section: immutable, and a key that is not a field is an error.

    Numbers and booleans are what they are: true is no 1, 1.0 no integer, and "1" no number. An
    integer is a number of any kind, a list a tuple, and a text a path.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[BaseModel], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        # pydantic's own `strict` would refuse lists for tuples too, and texts for paths.
        schema: CoreSchema = _strict(handler(source))
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
    """The path with a `~` in front spelt out: no shell has seen what a recipe says.

    Raises `ValueError` if there is no such home.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"there is no home {path.parts[0]}; give the whole path") from error


class Claim(NamedTuple):
    """Whether the expected policy gradient with a part is exactly that of an objective that the
    part names, and why: L_CFM for feature matching, the expected score for a verifier."""

    unbiased: bool
    why: str


def claim_of_all(claims: Sequence[Claim | None], why: str) -> Claim | None:
    """The claim of a part made of others: the first that is biased, None if one makes none, and
    otherwise unbiased because of `why`."""
    biased = next((claim for claim in claims if claim is not None and not claim.unbiased), None)
    return biased or (None if None in claims else Claim(True, why))


@dataclass(frozen=True, slots=True)
class Resources:
    """What a part may use when it is built: the policy and what belongs to it.

    `load_base` returns the frozen base model on `device`: a copy of its weights in `precision`, or
    the policy's own weights without the adapter if it is trained with LoRA.
    `processes` are those that train together, each with its share of the documents.
    """

    policy: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    load_base: Callable[[], PreTrainedModel]
    device: torch.device
    precision: torch.dtype
    seed: int
    processes: Processes = ONE_PROCESS


class Part(Options):
    """An interchangeable part: registered under a name, chosen by a recipe's `_component_`."""

    def build(self, resources: Resources) -> Any:  # noqa: ARG002
        """The object that the loop calls; the part itself, unless it needs state or a network."""
        return self

    def claim(self) -> Claim | None:
        """Whether the gradient is unbiased with this part; None if that is not its concern, or if
        its author has not said."""
        return None

    def missing(self) -> str | None:
        """What it needs that is not on this machine, and how to get it; None if it needs nothing.

        Asked before a model is loaded, and by `ebft validate`.
        """
        return None

    def single_process(self) -> str | None:
        """Why it cannot be used in a run of several processes; None if it can.

        There it is given this process's share of a step. Whatever it keeps of the contexts that it
        saw (a mean, a moment) it sums over `resources.processes`; if it computes with the policy,
        it does so inside `ebft.models.whole.whole`, in every process alike.
        """
        return None


def single_process_of_all(parts: Iterable[Part]) -> str | None:
    """Why a part made of others cannot be used in several processes: the first reason of theirs."""
    reasons = (part.single_process() for part in parts)
    return next((why for why in reasons if why is not None), None)


@dataclass(frozen=True, slots=True)
class PartOf(BeforeValidator):
    """What `part_of` returns: a validator that says of which kind its parts are."""

    kind: str = ""


def part_of(kind: str, *, optional: bool = False) -> PartOf:
    """Validates a recipe's `{_component_: name, **options}` into a part of `kind`.

    `kind` is the hook's name without `register_`: `Annotated[Part, part_of("rewards")]`. A value
    that is a part already passes, so parts can be built in Python without a recipe. `optional`
    lets null pass too, for a field that may be `Part | None`.
    """

    def validate(value: Any, info: ValidationInfo) -> Part | None:
        if isinstance(value, Part) or (optional and value is None):
            return value
        # Imported late: the registry loads the modules that define the built-in parts.
        from ebft.plugins import default_registry

        registry = (info.context or {}).get("registry") or default_registry()
        return registry.parse(kind, value, info.context)

    return PartOf(validate, kind=kind)
