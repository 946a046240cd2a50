"""`Part`: the frozen options model that every interchangeable piece of ebft derives from.

A part *is* its options; `build` returns the object that the loop calls. A part without state needs
only fields and `__call__`:

    class Constant(ebft.BaselinePart):
        \"""Subtracts the same number from every reward.\"""

        value: float = Field(0.0, description="what is subtracted from each reward")

        def __call__(self, terms: Terms) -> Float[Tensor, "P n"]:
            return terms.reward() - self.value
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from pydantic import (
    BeforeValidator,
    ValidationInfo,
)

from ebft.distributed.processes import ONE_PROCESS, Processes
from ebft.errors import UserError
from ebft.lazy import torch
from ebft.options import Options

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Claim(NamedTuple):
    """Whether the expected policy gradient with a part is exactly that of an objective that the
    part names, and why: L_CFM for feature matching, the expected score for a verifier."""

    unbiased: bool
    why: str


def claim_of_all(claims: Sequence[Claim | None], why: str) -> Claim | None:
    """Returns the claim of a part that is made of others: the first biased claim; else None if one
    of them is None; else unbiased because of `why`."""
    biased = next((claim for claim in claims if claim is not None and not claim.unbiased), None)
    return biased or (None if None in claims else Claim(True, why))


def no_other_models(path: str) -> PreTrainedModel:
    """The `load_other` of resources that have none. Raises `UserError`."""
    raise UserError(f"{path}: other models than the policy and its base cannot be loaded here")


@dataclass(frozen=True, slots=True)
class Resources:
    """What a part may use when it is built: the policy, its tokenizer and its environment.

    `load_base` returns the frozen base model on `device`: a copy of its weights in `precision`, or
    the policy's own weights without the adapter if it is trained with LoRA. With several processes
    the weights of both models are sharded. `load_other` returns another frozen model that has the
    policy's tokens, such as a teacher, by its folder or hub id; every process has all of it.
    `processes` are those that train together, each with its share of the documents.
    """

    policy: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    load_base: Callable[[], PreTrainedModel]
    device: torch.device
    precision: torch.dtype
    seed: int
    processes: Processes = ONE_PROCESS
    load_other: Callable[[str], PreTrainedModel] = no_other_models


class Part(Options):
    """An interchangeable part: registered under a name, chosen by a recipe's `_component_`."""

    same_results: ClassVar[tuple[str, ...]] = ()
    """Options that change results by rounding only: a run may be resumed with other values."""

    def build(self, resources: Resources) -> Any:  # noqa: ARG002
        """The object that the loop calls: by default the part itself. Parts with state or a network
        override this."""
        return self

    def claim(self) -> Claim | None:
        """Whether the gradient is unbiased with this part; None if the part does not affect that,
        or its author does not say."""
        return None

    def missing(self) -> str | None:
        """What it needs that is not on this machine, and how to get it; None if it needs nothing.

        Asked before a model is loaded, and by `ebft validate`.
        """
        return None

    def other_models(self) -> tuple[str, ...]:
        """The folders or hub ids that it loads with `resources.load_other`, for the estimate of
        memory."""
        return ()

    def single_process(self) -> str | None:
        """Why the part cannot be used in a run of several processes; None if it can.

        In such a run the part gets this process's share of a step. It must sum its statistics of
        contexts (a mean, a moment) over `resources.processes`. It must compute with the policy and
        with the base model inside `ebft.models.whole.whole`, and in every process.
        """
        return None


def single_process_of_all(parts: Iterable[Part]) -> str | None:
    """Returns the first reason why one of the parts cannot be used in several processes; None if
    all of them can."""
    reasons = (part.single_process() for part in parts)
    return next((why for why in reasons if why is not None), None)


class FindsParts(Protocol):
    """The method of the registry that `part_of` uses."""

    def parse(self, kind: str, section: Any, context: Any = None) -> Part: ...


@dataclass(frozen=True, slots=True)
class PartOf(BeforeValidator):
    """What `part_of` returns: a validator that knows the kind of its parts."""

    kind: str = ""


def part_of(kind: str, *, optional: bool = False) -> PartOf:
    """Validates a recipe's `{_component_: name, **options}` into a part of `kind`.

    `kind` is the hook's name without `register_`: `Annotated[Part, part_of("rewards")]`. The name
    is looked up in the registry of the validation context. A value that is already a part is
    accepted, so parts can be built in Python without a recipe. With `optional`, null is accepted
    too, for a field of type `Part | None`.
    """

    def validate(value: Any, info: ValidationInfo) -> Part | None:
        if isinstance(value, Part) or (optional and value is None):
            return value
        finder: FindsParts | None = (info.context or {}).get("registry")
        if finder is None:
            raise ValueError(
                "there is no registry to find a part by its name; pass the part itself, or "
                "validate with context={'registry': load_registry()}"
            )
        return finder.parse(kind, value, info.context)

    return PartOf(validate, kind=kind)
