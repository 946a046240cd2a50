"""ebft's own verifiers: functions of an attempt, some of which run it as a program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ebft.errors import UserError
from ebft.sandbox import Check, SandboxOptions, run_apart
from ebft.verifiers.attempts import Attempt
from ebft.verifiers.function_body import function_body
from ebft.verifiers.numbers import answer_number, last_number, only_number
from ebft.verifiers.worth import has_code, is_worth_passing

Verifier = Callable[[Attempt], float]


def exact_match(attempt: Attempt) -> float:
    """Returns 1 if the rollout equals the reference, without surrounding white space; else 0."""
    return float(attempt.rollout.strip() == attempt.reference.strip())


def final_answer(attempt: Attempt) -> float:
    """Returns 1 if the rollout's final number is the one in the document's check (GSM8K); else 0.

    The final number is the first after `####`, or the last number of a rollout without it.
    Thousands separators, currency and percent signs are ignored. After `####` a range or a choice
    of numbers is not right. Raises `UserError` if the check is not one number.
    """
    wanted = only_number(attempt.check)
    if wanted is None:
        raise UserError(
            f"verifier: final_answer: the check of document {attempt.document} is not one number: "
            f"{attempt.check[:100]!r}; name the column of the answers in data.check"
        )
    _, marked, rest = attempt.rollout.partition("####")
    return float((answer_number(rest) if marked else last_number(attempt.rollout)) == wanted)


def unit_tests(attempt: Attempt, sandbox: SandboxOptions) -> float:
    """Returns 1 if context + rollout is a program that runs to its end and passes the check.

    Else 0. Also 0, with one warning per document, if the check passes an empty program. Raises
    `UserError` if the document has no check.
    """
    if not has_code(attempt.check):
        raise UserError(
            f"verifier: unit_tests: document {attempt.document} has no check; name the column of "
            "the tests in data.check"
        )
    check = Check(attempt.check, attempt.context, attempt.reference)
    outcome = run_apart(f"{attempt.context}{attempt.rollout}\n", check, sandbox)
    is_worth = is_worth_passing(outcome, check, attempt.document, sandbox)
    return float(outcome.passed and is_worth)


def function_tests(attempt: Attempt, sandbox: SandboxOptions) -> float:
    """`unit_tests` of the function that the context begins; text after the function is cut off."""
    return unit_tests(replace(attempt, rollout=function_body(attempt.rollout)), sandbox)
