"""Verifiers of what the policy writes, for reward `verifiable` and evaluator `accuracy`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from decimal import Decimal
from pkgutil import resolve_name
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Int
from torch import Tensor

from ebft.config.located import suggest
from ebft.errors import UserError
from ebft.rewards.function_body import function_body
from ebft.rollout.records import Rollouts
from ebft.sandbox import SandboxOptions, require, run_python

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a verifier sees: the context's text, a rollout after it, the reference, and the check.

    `check` is the document's own: unit tests, an expected answer; empty if the data has none.
    """

    context: str
    rollout: str
    reference: str
    check: str


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


def is_verifier(name: str) -> str:
    """`name`, if it names a verifier. Raises `ValueError` if it does not."""
    if name not in RUNNING:
        _find(name)
    return name


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


def attempts_of(rollouts: Rollouts, tokenizer: PreTrainedTokenizerBase) -> list[Attempt]:
    """The n attempts of every context, context by context, as texts."""
    c, attempts = rollouts.contexts, []
    for p in range(len(c)):
        row = int(c.row[p])
        context = c.tokens[row, : int(c.anchor[p])]
        before = _text(context, tokenizer)
        reference = _after(before, context, _reference(rollouts, p), tokenizer)
        for tokens, mask in zip(rollouts.tokens[p], rollouts.mask[p], strict=True):
            rollout = _after(before, context, tokens[mask], tokenizer)
            attempts.append(Attempt(before, rollout, reference, c.documents[row].check))
    return attempts


def _reference(rollouts: Rollouts, p: int) -> Int[Tensor, " _"]:
    """What follows a context: after a prompt all of its completion, however short rollouts are."""
    c = rollouts.contexts
    document, anchor = c.documents[int(c.row[p])], int(c.anchor[p])
    if anchor == document.prompt_length:
        return document.tokens[anchor:].to(c.tokens.device)
    return c.reference[p][c.reference_mask[p]]


def cut(text: str, stop: Sequence[str]) -> str:
    """The text before the first of the `stop` texts in it."""
    found = [at for word in stop if (at := text.find(word)) >= 0]
    return text[: min(found, default=len(text))]


def _after(
    before: str,
    context: Int[Tensor, " a"],
    tokens: Int[Tensor, " _"],
    tokenizer: PreTrainedTokenizerBase,
) -> str:
    """The text that `tokens` add to the context's, which is `before`."""
    # Decoded together with the context: some tokenizers drop a space where a text begins.
    whole = _text(torch.cat([context, tokens]), tokenizer)
    if whole.startswith(before):
        return whole.removeprefix(before)
    # The context ends within a character, so that its text alone ends with a replacement for it.
    return _text(tokens, tokenizer)


def _text(tokens: Int[Tensor, " _"], tokenizer: PreTrainedTokenizerBase) -> str:
    return cast(str, tokenizer.decode(tokens.tolist(), skip_special_tokens=True))


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
