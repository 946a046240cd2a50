"""Whether passing a document's check says anything of a program."""

from __future__ import annotations

import logging
from functools import lru_cache

from ebft.sandbox import Check, Outcome, SandboxOptions, run_without_program

log = logging.getLogger("ebft")
CHECKS_KEPT = 1 << 16
UNUSABLE = "UnusableCheck"
"""How the error of a check begins that cannot run, whatever the program."""


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
