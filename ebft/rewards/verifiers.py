"""Verifiers of what the policy writes, for reward `verifiable` and evaluator `accuracy`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from pkgutil import resolve_name
from typing import Annotated, cast

from pydantic import AfterValidator

from ebft.errors import UserError
from ebft.mistakes import suggest
from ebft.rewards.attempts import Attempt
from ebft.rewards.function_body import function_body
from ebft.sandbox import SandboxOptions, require, run_python

Verifier = Callable[[Attempt], float]
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")


def exact_match(attempt: Attempt) -> float:
    """1 if the rollout is the reference, white space around them aside."""
    return float(attempt.rollout.strip() == attempt.reference.strip())


def final_answer(attempt: Attempt) -> float:
    """1 if the number that the rollout comes to is the one in the document's check (GSM8K).

    That is the first after `####`, or the last number of a rollout without it; commas and currency
    signs aside. Raises `UserError` if the check is no number.
    """
    wanted = _number(attempt.check)
    if wanted is None:
        raise UserError(
            f"verifier: final_answer: a document's check is no number: {attempt.check!r}"
        )
    _, marked, rest = attempt.rollout.partition("####")
    numbers = NUMBER.findall(rest if marked else attempt.rollout)
    if not numbers:
        return 0.0
    return float(_number(numbers[0] if marked else numbers[-1]) == wanted)


def _number(text: str) -> Decimal | None:
    found = NUMBER.search(text)
    return None if found is None else Decimal(found[0].replace(",", ""))


def unit_tests(attempt: Attempt, sandbox: SandboxOptions) -> float:
    """1 if context + rollout, followed by the document's check, runs to its end without error.

    Raises `UserError` if the document has no check: every program would pass.
    """
    if not attempt.check:
        raise UserError(
            "verifier: unit_tests: a document has no check; name the column of the tests in "
            "data.check"
        )
    program = f"{attempt.context}{attempt.rollout}\n\n{attempt.check}\n"
    return float(run_python(program, sandbox).passed)


def function_tests(attempt: Attempt, sandbox: SandboxOptions) -> float:
    """`unit_tests` of the function that the context begins: what the rollout has after the
    function's end is cut off."""
    return unit_tests(replace(attempt, rollout=function_body(attempt.rollout)), sandbox)


VERIFIERS: dict[str, Verifier] = {"exact_match": exact_match, "final_answer": final_answer}
RUNNING: dict[str, Callable[[Attempt, SandboxOptions], float]] = {
    "unit_tests": unit_tests,
    "function_tests": function_tests,
}
"""The verifiers that run programs."""


def check_verifier(name: str) -> str:
    """`name`, if it names a verifier. Raises `ValueError` if it does not."""
    if name not in RUNNING:
        _find(name)
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
    return _find(name)


def verify_attempts(verifier: Verifier, attempts: Sequence[Attempt], workers: int) -> list[float]:
    """What the verifier says of each attempt, `workers` of them at a time."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(verifier, attempts))


def _find(name: str) -> Verifier:
    if name in VERIFIERS:
        return VERIFIERS[name]
    if "." not in name and ":" not in name:
        raise ValueError(f"no verifier is named {name!r}{suggest(name, VERIFIERS | RUNNING)}")
    try:
        found = resolve_name(name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"cannot import {name!r}: {error}") from error
    if not callable(found):
        raise ValueError(f"{name!r} is not a function")
    return cast(Verifier, found)
