"""Verifiers of ebft's own: functions of an attempt, some of which run it as a program.

Of a program, what comes after the function's body can be cut off (`function_body`), and passing a
check only counts if the check fails an empty program (`is_worth_passing`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from ebft.errors import UserError
from ebft.sandbox import Check, Outcome, SandboxOptions, run_apart, run_without_program
from ebft.verifiers.attempts import Attempt
from ebft.verifiers.numbers import answer_number, last_number, only_number

Verifier = Callable[[Attempt], float]
log = logging.getLogger("ebft")
CHECKS_KEPT = 1 << 16
UNUSABLE = "UnusableCheck"
"""How the error of a check begins that cannot run, whatever the program."""


def exact_match(attempt: Attempt) -> float:
    """1 if the rollout is the reference, white space around them aside."""
    return float(attempt.rollout.strip() == attempt.reference.strip())


def final_answer(attempt: Attempt) -> float:
    """1 if the number that the rollout comes to is the one in the document's check (GSM8K).

    That is the first after `####`, or the last number of a rollout without it; thousands
    separators, currency and percent signs aside. After `####` a range or a choice of numbers is not
    right. Raises `UserError` if the check is not one number.
    """
    wanted = only_number(attempt.check)
    if wanted is None:
        raise UserError(
            f"verifier: final_answer: the check of document {attempt.document} is not one number: "
            f"{attempt.check[:100]!r}"
        )
    _, marked, rest = attempt.rollout.partition("####")
    return float((answer_number(rest) if marked else last_number(attempt.rollout)) == wanted)


def unit_tests(attempt: Attempt, sandbox: SandboxOptions) -> float:
    """1 if context + rollout is a program that runs to its end and passes the document's check.

    0 too if the check passes an empty program as well, with a warning for each document. Raises
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
    """`unit_tests` of the function that the context begins: what the rollout has after the
    function's end is cut off."""
    return unit_tests(replace(attempt, rollout=function_body(attempt.rollout)), sandbox)


def function_body(text: str) -> str:
    """The text up to its first line that is not indented, aside from lines within a string of many
    lines and from brackets that are closed there.

    Models that were not taught where to stop go on with another function, a call or prose; the
    benchmarks of code generation cut that off before they run the function, and so does this.
    """
    first, *lines = text.split("\n")
    body = [first]
    for line in lines:
        unindented = line and not line[0].isspace() and line[0] not in ")]}"
        if unindented and not inside_string("\n".join(body)):
            break
        body.append(line)
    return "\n".join(body)


def inside_string(code: str) -> bool:
    """Whether a string of three quotes is open at the end of some lines of Python."""
    return any(code.count(quotes) % 2 for quotes in ('"""', "'''"))


def has_code(check: str) -> bool:
    """Whether there is a line in it that is not empty and no comment."""
    return any(line.strip() and not line.strip().startswith("#") for line in check.splitlines())


def is_worth_passing(
    outcome: Outcome, check: Check, document: str, options: SandboxOptions
) -> bool:
    """Whether the check tells a program from none: whether it fails an empty one.

    It is run for that once, when a program has passed it. Of a check that passes whatever is
    written, or that fails it because it cannot run, the log says so, once for each document.
    """
    if outcome.passed:
        return _fails_an_empty_program(check, document, options)
    if outcome.error.startswith(UNUSABLE):
        _warn(document, f"cannot run ({outcome.error.partition(': ')[2]})")
    return False


@lru_cache(CHECKS_KEPT)
def _fails_an_empty_program(check: Check, document: str, options: SandboxOptions) -> bool:
    if not run_without_program(check, options).passed:
        return True
    _warn(document, "passes a program whose functions are empty, so it tests nothing")
    return False


@lru_cache(CHECKS_KEPT)
def _warn(document: str, what: str) -> None:
    log.warning(
        "the check of document %s %s; no program passes it. Leave the document out, or mend its "
        "check",
        document,
        what,
    )
