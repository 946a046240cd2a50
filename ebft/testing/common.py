"""Functions that the checks of all kinds of parts share."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from ebft.parts.part import Claim, Part, Resources
from ebft.plans.completion import Completion
from ebft.plans.strided import Strided
from ebft.rollout.records import Contexts
from ebft.testing.tiny import tiny_documents


def require(part: Part, holds: bool, says: str) -> None:
    """Raises `AssertionError` naming the part and the property, also under `python -O`."""
    if not holds:
        raise AssertionError(f"{type(part).__name__}: {says}")


def check_options(part: Part, base: type[Part] = Part) -> None:
    """Checks the base class, the docstring, the description of every option, the claim's type, and
    equality by value."""
    require(part, isinstance(part, base), f"a part of this kind derives from ebft.{base.__name__}")
    require(
        part, bool(inspect.getdoc(type(part))), "the class has a docstring, which `ebft ls` shows"
    )
    for name, field in type(part).model_fields.items():
        require(
            part,
            bool(field.description),
            f"option {name} has a description: {name}: … = Field(…, description=…)",
        )
    claim = part.claim()
    require(
        part,
        claim is None or (isinstance(claim, Claim) and bool(claim.why)),
        f"claim() returns None or an ebft.Claim that says why, not {claim!r}",
    )
    again = type(part)(**{name: getattr(part, name) for name in type(part).model_fields})
    require(part, again == part, "the same options make an equal part")


def check_tensor(part: Part, name: str, value: Any, shape: Sequence[int]) -> None:
    """Checks for a finite floating-point tensor of that shape that requires no gradient."""
    require(part, isinstance(value, Tensor), f"{name} is a tensor, not {type(value).__name__}")
    require(
        part,
        tuple(value.shape) == tuple(shape),
        f"{name} has shape {list(shape)}, not {list(value.shape)}",
    )
    require(part, value.is_floating_point(), f"{name} is floating point, not {value.dtype}")
    require(part, bool(value.isfinite().all()), f"{name} is finite")
    require(part, not value.requires_grad, f"{name} carries no gradient")


def close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Returns whether the largest difference is at most `tolerance` · max(1, max |b|)."""
    scale = max(1.0, float(b.abs().max()) if b.numel() else 0.0)
    return a.shape == b.shape and bool(((a - b).abs() <= tolerance * scale).all())


def tensors(record: Any) -> Iterator[Tensor]:
    """Yields every tensor of a record and of the records in it."""
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, Tensor):
            yield value
        elif is_dataclass(value):
            yield from tensors(value)


class Unchanged:
    """Copies the tensors of records, and is true as long as nothing has written into them."""

    def __init__(self, *records: Any) -> None:
        self._before = [(t, t.clone()) for record in records for t in tensors(record)]

    def __bool__(self) -> bool:
        return all(torch.equal(now, before) for now, before in self._before)


def contexts_of_both_plans(resources: Resources) -> dict[str, Contexts]:
    """Returns contexts of plans `strided` (rollouts have G tokens) and `completion` (may end)."""
    vocabulary, device = resources.policy.config.vocab_size, resources.device
    raw = tiny_documents([19, 12, 16], vocabulary=vocabulary)
    pairs = tiny_documents([8, 14, 6], prompt_length=4, vocabulary=vocabulary)
    return {
        "strided": Strided(start=3, stride=4, rollout_length=5)(raw).to(device),
        "completion": Completion(rollout_length=6)(pairs).to(device),
    }


def promises_independence(part: Part) -> bool:
    """Returns whether the part's output for rollout j must not depend on other rollouts.

    Only a part that claims a biased gradient may mix rollouts.
    """
    claim = part.claim()
    return claim is None or claim.unbiased
