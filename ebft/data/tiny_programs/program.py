"""A tiny program of one or two steps: its expression, instruction and outputs."""

from __future__ import annotations

import ast
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from ebft.data.tiny_programs.steps import LETTERS, Kind, Step

ARGUMENTS: dict[Kind, tuple[str, ...]] = {
    "text": ("s", "text", "word"),
    "numbers": ("xs", "values", "items"),
}
FAILS = "fails"
PROBES = 40


@dataclass(frozen=True, slots=True)
class Program:
    """A function of `argument`: steps with their constants, applied in order."""

    steps: tuple[Step, ...]
    argument: str

    @property
    def kind(self) -> str:
        """The steps' names in their order, without constants: "sort+first"."""
        return "+".join(step.name for step in self.steps)

    @property
    def expression(self) -> str:
        return _expression(self.steps, self.argument)

    @property
    def instruction(self) -> str:
        first, *rest = (step.instruction for step in self.steps)
        words = [first.format(it=self.argument), *(text.format(it="the result") for text in rest)]
        text = ", then ".join(words)
        return f"{text[0].upper()}{text[1:]}."

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs for the probes, which are equal for equivalent programs."""
        return _outputs(self.steps)

    def output(self, value: Any) -> str:
        """Returns the repr of the result; `FAILS` if it raises (the largest of no numbers)."""
        return _output(_function(self.steps), value)

    @property
    def lesser(self) -> list[Program]:
        """The programs that this one must differ from: each step alone, and no step."""
        kind = self.steps[0].takes
        alone = [(step,) for step in self.steps] if len(self.steps) > 1 else []
        none = (Step("none", kind, kind, "", "it"),)
        return [Program(steps, self.argument) for steps in (*alone, none)]

    @property
    def is_degenerate(self) -> bool:
        """Whether it is equivalent to a lesser program, or gives the same output for every
        input."""
        if len(set(self.outputs) - {FAILS}) <= 2:
            return True
        return any(self.outputs == other.outputs for other in self.lesser)

    def draw_input(self, rng: random.Random) -> Any:
        letters = "".join(step.letters for step in self.steps)
        return draw_input(self.steps[0].takes, rng, letters)


def draw_input(kind: Kind, rng: random.Random, letters: str = "") -> Any:
    """Returns a text of 4 to 9 letters, often with `letters`, or a list of 4 to 8 numbers."""
    if kind == "numbers":
        return [rng.randint(0, 12) for _ in range(rng.randint(4, 8))]
    alphabet = letters + "".join(rng.sample(LETTERS, 5))
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(4, 9)))


def _expression(steps: tuple[Step, ...], argument: str) -> str:
    value: ast.expr = ast.Name(argument, ast.Load())
    for step in steps:
        value = _Substitute(value).visit(ast.parse(step.expression, mode="eval").body)
    return ast.unparse(value)


class _Substitute(ast.NodeTransformer):
    """Puts `value` where an expression says `it`."""

    def __init__(self, value: ast.expr) -> None:
        self._value = value

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._value if node.id == "it" else node


@lru_cache(maxsize=1 << 14)
def _function(steps: tuple[Step, ...]) -> Callable[[Any], Any]:
    # The expression is made only of our STEPS, never of text that a model wrote.
    return eval(f"lambda it: {_expression(steps, 'it')}")  # type: ignore[no-any-return]


def _output(function: Callable[[Any], Any], value: Any) -> str:
    try:
        return repr(function(value))
    except (ValueError, TypeError, AttributeError):
        return FAILS


@lru_cache(maxsize=1 << 14)
def _outputs(steps: tuple[Step, ...]) -> tuple[str, ...]:
    function = _function(steps)
    return tuple(_output(function, probe) for probe in _probes())


@cache
def _probes() -> list[Any]:
    # Both texts and lists: `xs[3:]` is the same program for both.
    rng = random.Random(0)
    return [draw_input(kind, rng) for kind in ARGUMENTS for _ in range(PROBES)]
