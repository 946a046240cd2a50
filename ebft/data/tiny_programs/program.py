"""A tiny program: one step or two, as an expression, an instruction and what it computes."""

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
    """A function of `argument`: its steps, each with its constants, one after the other."""

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
        """What it computes from the probes: two programs that do the same have the same."""
        return _outputs(self.steps)

    def output(self, value: Any) -> str:
        """The result as Python writes it; `FAILS` if there is none (the largest of no numbers)."""
        return _output(_function(self.steps), value)

    @property
    def lesser(self) -> list[Program]:
        """What this program must not be mistaken for: each of its two steps alone, and none."""
        kind = self.steps[0].takes
        alone = [(step,) for step in self.steps] if len(self.steps) > 1 else []
        none = (Step("none", kind, kind, "", "it"),)
        return [Program(steps, self.argument) for steps in (*alone, none)]

    @property
    def is_degenerate(self) -> bool:
        """Whether it is no program of its own: it computes what a lesser one does, or the same
        whatever it is given."""
        if len(set(self.outputs) - {FAILS}) <= 2:
            return True
        return any(self.outputs == other.outputs for other in self.lesser)

    def draw_input(self, rng: random.Random) -> Any:
        letters = "".join(step.letters for step in self.steps)
        return draw_input(self.steps[0].takes, rng, letters)


def draw_input(kind: Kind, rng: random.Random, letters: str = "") -> Any:
    """A text of 4 to 9 letters, `letters` often among them, or a list of 4 to 8 numbers."""
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
    # The expression is ours, made of STEPS alone; nothing that a model wrote comes here.
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
    # Of both kinds: `xs[3:]` is the same program for texts and for numbers.
    rng = random.Random(0)
    return [draw_input(kind, rng) for kind in ARGUMENTS for _ in range(PROBES)]
