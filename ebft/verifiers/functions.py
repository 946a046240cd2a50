"""Verifiers of ebft's own: functions of an attempt, some of which run it as a program."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

from ebft.errors import UserError
from ebft.sandbox import SandboxOptions, run_python
from ebft.verifiers.attempts import Attempt
from ebft.verifiers.function_body import function_body

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
            f"verifier: final_answer: the check of document {attempt.document} is no number: "
            f"{attempt.check!r}"
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
            f"verifier: unit_tests: document {attempt.document} has no check; name the column of "
            "the tests in data.check"
        )
    program = f"{attempt.context}{attempt.rollout}\n\n{attempt.check}\n"
    return float(run_python(program, sandbox).passed)


def function_tests(attempt: Attempt, sandbox: SandboxOptions) -> float:
    """`unit_tests` of the function that the context begins: what the rollout has after the
    function's end is cut off."""
    return unit_tests(replace(attempt, rollout=function_body(attempt.rollout)), sandbox)
