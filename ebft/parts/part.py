"""`Part`: the frozen options model that every interchangeable piece of ebft is.

A part *is* its options; `build` turns it into the object that the loop calls. A part without state
needs no more than fields and `__call__`:

    class Constant(ebft.BaselinePart):
        \"""Subtracts the same number from every reward.\"""

        value: float = Field(0.0, description="what is subtracted from each reward")

        def __call__(self, terms: Terms) -> Float[Tensor, "P n"]:
            return terms.reward() - self.value
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from pydantic import (
    BeforeValidator,
    ValidationInfo,
)

from ebft.distributed.processes import ONE_PROCESS, Processes
from ebft.options import Options

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


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


class FindsParts(Protocol):
    """The registry, as `part_of` uses it."""

    def parse(self, kind: str, section: Any, context: Any = None) -> Part: ...


@dataclass(frozen=True, slots=True)
class PartOf(BeforeValidator):
    """What `part_of` returns: a validator that says of which kind its parts are."""

    kind: str = ""


def part_of(kind: str, *, optional: bool = False) -> PartOf:
    """Validates a recipe's `{_component_: name, **options}` into a part of `kind`.

    `kind` is the hook's name without `register_`: `Annotated[Part, part_of("rewards")]`. The
    registry that finds the name is in the validation's context. A value that is a part already
    passes, so parts can be built in Python without a recipe. `optional` lets null pass too, for a
    field that may be `Part | None`.
    """

    def validate(value: Any, info: ValidationInfo) -> Part | None:
        if isinstance(value, Part) or (optional and value is None):
            return value
        finder: FindsParts | None = (info.context or {}).get("registry")
        if finder is None:
            raise ValueError(
                "a part is given by its name, and there is no registry to find it in; give the "
                "part itself, or validate with context={'registry': load_registry()}"
            )
        return finder.parse(kind, value, info.context)

    return PartOf(validate, kind=kind)
