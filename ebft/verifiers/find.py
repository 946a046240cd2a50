"""Finds verifiers by name, or by the dotted path of a function."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Protocol, cast, runtime_checkable

from pydantic import AfterValidator, ValidationInfo

from ebft.errors import suggest
from ebft.parts.named import find_named, importable_in
from ebft.parts.packages import missing
from ebft.sandbox import LANGUAGES, SandboxError, SandboxOptions, require, why_not_here
from ebft.verifiers.attempts import Attempt, shorten
from ebft.verifiers.functions import (
    Verifier,
    exact_match,
    final_answer,
    function_tests,
    language_tests,
    program_tests,
    unit_tests,
)
from ebft.verifiers.translations import sentence_bleu, sentence_chrf

OF_TRANSLATIONS: dict[str, Verifier] = {
    "sentence_bleu": sentence_bleu,
    "sentence_chrf": sentence_chrf,
}
"""The verifiers that need sacrebleu."""
VERIFIERS: dict[str, Verifier] = {
    "exact_match": exact_match,
    "final_answer": final_answer,
    **OF_TRANSLATIONS,
}
RUNNING: dict[str, Callable[[Attempt, SandboxOptions], float]] = {
    "unit_tests": unit_tests,
    "function_tests": function_tests,
    "program_tests": program_tests,
    **{f"{name}_tests": partial(language_tests, name) for name in LANGUAGES},
}
"""The verifiers that run programs."""


def check_verifier(name: str, info: ValidationInfo) -> str:
    """Returns `name` if it names a verifier. Raises `ValueError` if it does not."""
    if name not in RUNNING:
        _find(name, importable_in(info.context))
    return name


VerifierName = Annotated[str, AfterValidator(check_verifier)]
VERIFIER = (
    "exact_match, final_answer, sentence_bleu and sentence_chrf (sacrebleu's, of 1), unit_tests, "
    "function_tests (text after the function is cut off), program_tests (of a program in an answer "
    "to a question), "
    f"{', '.join(f'{name}_tests' for name in LANGUAGES)} (programs of other languages), or the "
    "dotted path of a function: Attempt → number"
)
"""The description of an option of type `VerifierName`."""


def missing_for(name: str) -> str | None:
    """Returns what a verifier needs and this machine lacks, and how to get it."""
    return missing("sacrebleu") if name in OF_TRANSLATIONS else None


def unavailable(name: str, sandbox: SandboxOptions) -> str | None:
    """Returns why a verifier of another language cannot run its programs on this machine, and what
    to install; None for other verifiers, and if it can. Raises `SandboxError` as `find_verifier`
    does."""
    language = name.removesuffix("_tests")
    return why_not_here(language, sandbox) if language in LANGUAGES else None


def find_verifier(name: str, sandbox: SandboxOptions) -> Verifier:
    """Returns the verifier that `name` names; verifiers that run programs use `sandbox`.

    Raises `ValueError` if there is none, and `SandboxError` if this machine lacks this isolation.
    """
    if name in RUNNING:
        require(sandbox)  # fails here, not in the first step
        if why := unavailable(name, sandbox):
            raise SandboxError(f"verifier: {name}: {why}")
        verifier = RUNNING[name]
        return lambda attempt: verifier(attempt, sandbox)
    return _find(name, None)  # `check_verifier` has validated the option


@dataclass(frozen=True, slots=True)
class Verification:
    """How a part verifies attempts: by which verifier, in which sandbox, and what is cut off."""

    verifier: str
    sandbox: SandboxOptions
    workers: int
    stop: tuple[str, ...] | None = ()

    def __call__(self, attempts: Sequence[Attempt]) -> list[float]:
        """Returns the verifier's value for each attempt. Raises as `find_verifier` does."""
        shortened = [shorten(one, self.stop) for one in attempts]
        return verify_attempts(find_verifier(self.verifier, self.sandbox), shortened, self.workers)


@runtime_checkable
class Verifying(Protocol):
    """The options of a part that verifies what a policy writes."""

    def verification(self) -> Verification: ...


def verify_attempts(verifier: Verifier, attempts: Sequence[Attempt], workers: int) -> list[float]:
    """Returns the verifier's value for each attempt, computed by `workers` threads."""
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
