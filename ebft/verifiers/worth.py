"""Detects checks that test nothing, or cannot run."""

from __future__ import annotations

import logging
from functools import lru_cache

from ebft.sandbox import Check, Outcome, SandboxOptions, run_without_program

log = logging.getLogger("ebft")
CHECKS_KEPT = 1 << 16
UNUSABLE = "UnusableCheck"
"""The beginning of the error of a check that cannot run with any program."""


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
