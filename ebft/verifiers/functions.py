"""ebft's own verifiers: functions of an attempt, some of which run it as a program.

`function_body` finds the end of a function that a prompt begins and a model completes.
`is_worth_passing` detects checks that test nothing, or cannot run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from ebft.errors import UserError
from ebft.sandbox import (
    Check,
    Outcome,
    SandboxOptions,
    run_in_two_processes,
    run_tests,
    run_without_program,
)
from ebft.verifiers.answers import continuation_in, inside_string, program_in
from ebft.verifiers.attempts import Attempt
from ebft.verifiers.numbers import answer_number, last_number, only_number

Verifier = Callable[[Attempt], float]
log = logging.getLogger("ebft")
CHECKS_KEPT = 1 << 16
LANGUAGE = "language: "
"""A check's first line begins with it if its tests are of another language than Python."""
UNUSABLE = "UnusableCheck"
"""The beginning of the error of a check that cannot run with any program."""


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

    Else 0. A fence after the code and the text behind it are cut off. Also 0, with one warning per
    document, if the check passes an empty program. Raises `UserError` if the document has no check.
    """
    program = f"{attempt.context}{continuation_in(attempt.rollout)}\n"
    check = Check(_tests_of(attempt), attempt.context, attempt.reference)
    return _passes(program, check, attempt.document, sandbox)


def program_tests(attempt: Attempt, sandbox: SandboxOptions) -> float:
    """Returns 1 if the program in the rollout runs to its end and passes the check, else 0.

    The program is the first fenced block of the rollout, or all of it; the context is a question,
    and not part of the program. Otherwise as `unit_tests`.
    """
    check = Check(_tests_of(attempt), "", program_in(attempt.reference))
    return _passes(f"{program_in(attempt.rollout)}\n", check, attempt.document, sandbox)


def language_tests(language: str, attempt: Attempt, sandbox: SandboxOptions) -> float:
    """Returns 1 if context + rollout + check is a program of the language that runs to its end,
    else 0.

    `language` is a key of `ebft.sandbox.LANGUAGES`. A fence after the code and the text behind it
    are cut off. Raises `UserError` if the document has no check, or one of another language.
    """
    tests = _tests_of(attempt)
    first, _, rest = tests.partition("\n")
    if first.startswith(LANGUAGE):
        if (named := first.removeprefix(LANGUAGE)) != language:
            raise UserError(
                f"verifier: {language}_tests: the tests of document {attempt.document} are "
                f"{named}; set verifier: {named}_tests"
            )
        tests = rest
    code = attempt.context + continuation_in(attempt.rollout)
    return float(run_tests(language, code, tests, sandbox).passed)


def _tests_of(attempt: Attempt) -> str:
    if not has_code(attempt.check):
        raise UserError(
            f"verifier: document {attempt.document} has no check; name the column of "
            "its unit tests in data.check"
        )
    return attempt.check


def _passes(program: str, check: Check, document: str, sandbox: SandboxOptions) -> float:
    outcome = run_in_two_processes(program, check, sandbox)
    is_worth = is_worth_passing(outcome, check, document, sandbox)  # says why it is not
    return float(outcome.passed and is_worth)


def function_tests(attempt: Attempt, sandbox: SandboxOptions) -> float:
    """`unit_tests` of the function that the context begins; text after the function is cut off."""
    return unit_tests(replace(attempt, rollout=function_body(attempt.rollout)), sandbox)


def function_body(text: str) -> str:
    """Returns the text before its first line that is not indented.

    Lines within a triple-quoted string, and lines that begin with a closing bracket, do not count.
    Models that were not trained to stop continue with another function, a call or prose. Benchmarks
    of code generation cut this off before they run the function, and so does this function.
    """
    first, *lines = text.split("\n")
    body = [first]
    for line in lines:
        unindented = line and not line[0].isspace() and line[0] not in ")]}"
        if unindented and not inside_string("\n".join(body)):
            break
        body.append(line)
    return "\n".join(body)


def has_code(check: str) -> bool:
    """Whether the check has a line that is not empty and not a comment."""
    return any(line.strip() and not line.strip().startswith("#") for line in check.splitlines())


def is_worth_passing(
    outcome: Outcome, check: Check, document: str, options: SandboxOptions
) -> bool:
    """Whether the program passed a check that an empty program fails.

    The check is run with an empty program once, when a program first passes it. A check that passes
    an empty program, or that cannot run, is logged once per document.
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
        "the check of document %s %s; no program passes it. Leave the document out, or fix its "
        "check",
        document,
        what,
    )
