"""The steps that tiny programs are made of: each an instruction in English and a Python expression.

In an instruction `{it}` is the input of the step ("xs", "the result"); in an expression it is the
name `it`. `{k}`, `{few}`, `{a}` and `{b}` are constants, drawn for every program.
"""

from __future__ import annotations

import random
from typing import Literal, NamedTuple

Kind = Literal["text", "numbers", "number"]
LETTERS = "abcdefghiklmnoprstuw"


class Step(NamedTuple):
    """A function of a text or of a list of numbers, which returns the same type or a number.

    `letters` are the letters among its constants, so that inputs can contain them.
    """

    name: str
    takes: Kind
    gives: Kind
    instruction: str
    expression: str
    letters: str = ""

    @property
    def has_constants(self) -> bool:
        """Whether its expression is a template, with constants to be drawn."""
        return "{" in self.expression

    def with_constants(self, rng: random.Random) -> Step:
        """Returns the step with random constants."""
        letters = dict(zip("ab", rng.sample(LETTERS, 2), strict=True))
        constants = {"k": rng.randint(2, 9), "few": rng.randint(2, 4), **letters}
        return self._replace(
            instruction=self.instruction.format(it="{it}", **constants),
            expression=self.expression.format(**constants),
            letters="".join(
                letter for name, letter in letters.items() if f"{{{name}}}" in self.expression
            ),
        )


def _text(name: str, instruction: str, expression: str, gives: Kind = "text") -> Step:
    return Step(name, "text", gives, instruction, expression)


def _numbers(name: str, instruction: str, expression: str, gives: Kind = "numbers") -> Step:
    return Step(name, "numbers", gives, instruction, expression)


STEPS = (
    _text("upper", "convert {it} to upper case", "it.upper()"),
    _text("reverse_text", "reverse {it}", "it[::-1]"),
    _text("sort_letters", "sort the characters of {it}", "''.join(sorted(it))"),
    _text("first_letters", "keep the first {few} characters of {it}", "it[:{few}]"),
    _text("last_letters", "keep the last {few} characters of {it}", "it[-{few}:]"),
    _text("skip_letters", "remove the first {few} characters of {it}", "it[{few}:]"),
    _text("cut_letters", "remove the last {few} characters of {it}", "it[:-{few}]"),
    _text("second_letters", "keep every second character of {it}", "it[::2]"),
    _text("repeat", "repeat {it} {few} times", "it * {few}"),
    _text("replace", "replace every '{a}' in {it} with '{b}'", "it.replace('{a}', '{b}')"),
    _text("remove", "remove every '{a}' from {it}", "it.replace('{a}', '')"),
    _text("end_with", "add '{a}{b}' to the end of {it}", "it + '{a}{b}'"),
    _text("start_with", "add '{a}{b}' to the start of {it}", "'{a}{b}' + it"),
    _text("count_letter", "count how often '{a}' is in {it}", "it.count('{a}')", "number"),
    _text("length", "get the length of {it}", "len(it)", "number"),
    _numbers("sort", "sort {it}", "sorted(it)"),
    _numbers("sort_down", "sort {it} in descending order", "sorted(it, reverse=True)"),
    _numbers("reverse", "reverse {it}", "it[::-1]"),
    _numbers("first", "keep the first {few} numbers of {it}", "it[:{few}]"),
    _numbers("last", "keep the last {few} numbers of {it}", "it[-{few}:]"),
    _numbers("skip", "remove the first {few} numbers of {it}", "it[{few}:]"),
    _numbers("cut", "remove the last {few} numbers of {it}", "it[:-{few}]"),
    _numbers("even", "keep the even numbers of {it}", "[x for x in it if x % 2 == 0]"),
    _numbers("above", "keep the numbers above {k} of {it}", "[x for x in it if x > {k}]"),
    _numbers("below", "keep the numbers below {k} of {it}", "[x for x in it if x < {k}]"),
    _numbers("multiply", "multiply each number of {it} by {k}", "[x * {k} for x in it]"),
    _numbers("add", "add {k} to each number of {it}", "[x + {k} for x in it]"),
    _numbers("append", "add the number {k} to the end of {it}", "it + [{k}]"),
    _numbers("sum", "add up all numbers of {it}", "sum(it)", "number"),
    _numbers("max", "find the largest number of {it}", "max(it)", "number"),
    _numbers("min", "find the smallest number of {it}", "min(it)", "number"),
    _numbers("count", "count how often {k} is in {it}", "it.count({k})", "number"),
)
