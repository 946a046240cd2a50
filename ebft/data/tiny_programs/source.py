"""Data source `tiny_programs`: small Python functions to write, each with unit tests that run."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from hashlib import blake2b
from itertools import permutations
from typing import Any

from pydantic import Field

from ebft.data.tiny_programs.program import ARGUMENTS, FAILS, Program
from ebft.data.tiny_programs.steps import STEPS, Step
from ebft.parts.part import Part
from ebft.parts.splits import Example, Splits

SINGLES = [(step,) for step in STEPS]
PAIRS = [pair for pair in permutations(STEPS, 2) if pair[0].gives == pair[1].takes]
TESTS = 6
"""Unit tests of each program."""
ATTEMPTS = 10
ONE_STEP = 2 / 3
"""Share of the programs with one step, except out of distribution."""
HELD_OUT = 0.2
"""Share of distinct functions that is held out, and of pairs of steps that are not in train."""


class TinyPrograms(Part):
    """Functions of a text or a list of numbers, from a seed: docstring → return expression.

    A docstring asks for one step ("Sort xs.") or, less often, two ("Sort xs, then keep the first
    3 numbers of the result.") and shows one call. `check` has the function's unit tests, on other
    inputs, which the reward `verifiable` runs (`verifier: function_tests`). Every function with
    the right results passes; it is not compared with the reference.

    Held-out programs compute functions that no program in train computes, for any two seeds.
    Out-of-distribution programs have two steps that are never together in train, in either order,
    though train has each of them.
    """

    train: int = Field(4000, ge=1, description="programs to train on")
    held_out: int = Field(200, ge=1, description="programs to hold out")
    out_of_distribution: int = Field(
        200, ge=1, description="programs with pairs of steps that are not in train"
    )
    seed: int = Field(0, ge=0, description="seed of the programs, constants and tests")

    def __call__(self) -> Splits:
        return Splits(
            train=self._draw("train", self.train),
            held_out=self._draw("held_out", self.held_out),
            out_of_distribution=self._draw("out_of_distribution", self.out_of_distribution),
        )

    def _draw(self, split: str, count: int) -> list[Example]:
        rng = random.Random(f"{self.seed} {split}")
        unseen = split == "out_of_distribution"
        pairs = [pair for pair in PAIRS if is_unseen(pair) == unseen]
        found: dict[str, Example] = {}
        while len(found) < count:
            chain = rng.choice(SINGLES if not unseen and rng.random() < ONE_STEP else pairs)
            program = draw_program(chain, rng)
            if not program.is_degenerate and is_held_out(program) == (split != "train"):
                name = f"tiny_programs/{program.kind}:{split}-{len(found) + 1}"
                if (example := as_example(program, name, rng)) is not None:
                    found.setdefault(example.prompt, example)
        return list(found.values())


def draw_program(chain: Sequence[Step], rng: random.Random) -> Program:
    """Returns a program of these steps, with random constants and argument name."""
    argument = rng.choice(ARGUMENTS[chain[0].takes])
    return Program(tuple(step.with_constants(rng) for step in chain), argument)


def is_unseen(pair: Sequence[Step]) -> bool:
    """Whether train never has these two steps together; the same for every seed and order."""
    return _place(" ".join(sorted(step.name for step in pair))) < HELD_OUT


def is_held_out(program: Program) -> bool:
    """Whether equivalent programs are held out; the same for every seed.

    A single step without constants is always in train, because there is only one such program.
    """
    return program.outputs not in _basic() and _place("\n".join(program.outputs)) < HELD_OUT


@cache
def _basic() -> frozenset[tuple[str, ...]]:
    steps = [step for step in STEPS if not step.has_constants]
    return frozenset(Program((step,), ARGUMENTS[step.takes][0]).outputs for step in steps)


def as_example(program: Program, name: str, rng: random.Random) -> Example | None:
    """Returns an example: signature, docstring and `return` as the prompt, the expression as the
    completion, and unit tests that no lesser program passes.

    None if such tests are hard to find, because a step changes the output of few inputs only.
    """
    for _ in range(ATTEMPTS):
        shown, *tested = _draw_inputs(program, rng)
        if all(any(program.output(v) != it.output(v) for v in tested) for it in program.lesser):
            break
    else:
        return None
    prompt = (
        f"def f({program.argument}):\n"
        f'    """{program.instruction}\n\n'
        f"    >>> f({shown!r})\n"
        f"    {program.output(shown)}\n"
        f'    """\n'
        "    return"
    )
    check = "\n".join(f"assert f({value!r}) == {program.output(value)}" for value in tested)
    return Example(name, f" {program.expression}", prompt, check)


def _draw_inputs(program: Program, rng: random.Random) -> list[Any]:
    """Returns distinct inputs for which the program has a result, one more than tests."""
    inputs: list[Any] = []
    while len(inputs) <= TESTS:
        value = program.draw_input(rng)
        if value not in inputs and program.output(value) != FAILS:
            inputs.append(value)
    return inputs


def _place(text: str) -> float:
    """Returns a number in [0, 1) from a hash of the text."""
    return int.from_bytes(blake2b(text.encode(), digest_size=6).digest()) / 2**48
