"""Verifiers by their names, or by the dotted paths of functions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, cast

from pydantic import AfterValidator, ValidationInfo

from ebft.mistakes import suggest
from ebft.named import find_named, importable_in
from ebft.sandbox import SandboxOptions, require
from ebft.verifiers.attempts import Attempt
from ebft.verifiers.functions import Verifier, exact_match, final_answer, function_tests, unit_tests

VERIFIERS: dict[str, Verifier] = {"exact_match": exact_match, "final_answer": final_answer}
RUNNING: dict[str, Callable[[Attempt, SandboxOptions], float]] = {
    "unit_tests": unit_tests,
    "function_tests": function_tests,
}
"""The verifiers that run programs."""


def check_verifier(name: str, info: ValidationInfo) -> str:
    """`name`, if it names a verifier. Raises `ValueError` if it does not."""
    if name not in RUNNING:
        _find(name, importable_in(info.context))
    return name


VerifierName = Annotated[str, AfterValidator(check_verifier)]
VERIFIER = (
    "exact_match, final_answer, unit_tests, function_tests (what comes after the function is cut "
    "off), or the dotted path of a function: Attempt → number"
)
"""What an option of this type may be."""


def find_verifier(name: str, sandbox: SandboxOptions) -> Verifier:
    """The verifier that `name` names; one that runs programs does so in `sandbox`.

    Raises `ValueError` if there is none, and `SandboxError` if this machine cannot run programs so.
    """
    if name in RUNNING:
        require(sandbox)  # now, and not in the first step
        verifier = RUNNING[name]
        return lambda attempt: verifier(attempt, sandbox)
    return _find(name, None)  # the option has been checked


def verify_attempts(verifier: Verifier, attempts: Sequence[Attempt], workers: int) -> list[float]:
    """What the verifier says of each attempt, `workers` of them at a time."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(verifier, attempts))


def _find(name: str, importable: Collection[str] | None) -> Verifier:
    if name in VERIFIERS:
        return VERIFIERS[name]
    if "." not in name and ":" not in name:
        raise ValueError(f"no verifier is named {name!r}{suggest(name, VERIFIERS | RUNNING)}")
    found = find_named(name, importable)
    if not callable(found):
        raise ValueError("is not a function")
    return cast(Verifier, found)
