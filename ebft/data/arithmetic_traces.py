"""Data source `arithmetic_traces`: expressions that are evaluated one operation at a time."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable, Iterator
from hashlib import blake2b

from pydantic import Field, model_validator

from ebft.errors import UserError
from ebft.parts.part import Part
from ebft.parts.splits import Example, Splits

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
}
UNSEEN = {("-", "*"), ("*", "-")}
"""Pairs of an operation and one of its operands' that are not in train."""
HELD_OUT = 0.2
"""Share of all expressions that is held out."""
TRIES = 1000
"""Expressions drawn in vain, one after another, before a split counts as exhausted."""

Tree = int | tuple["Tree", str, "Tree"]
"""A number, or a left operand, an operation and a right operand."""


class ArithmeticTraces(Part):
    """Expressions modulo a number, from a seed: `(7-(3*4))+6=` → `(7-2)+6=5+6=1`.

    Each term of the chain carries out one operation of the term before; which one, of those whose
    operands are numbers, is chosen at random. So the chain has low entropy, a mistake in one term
    is in all later ones, and the last term is the answer, which `check` has (`verifier:
    final_answer`).

    Held-out expressions are not in train, for any two seeds. Out-of-distribution expressions have
    a difference that is an operand of a product, or the reverse, which train never has. Expressions
    with more operations than were trained on are measured as a set of `evaluation.sets`.
    """

    train: int = Field(4000, ge=1, description="expressions to train on, all different")
    held_out: int = Field(200, ge=1, description="expressions to hold out")
    out_of_distribution: int = Field(
        200, ge=0, description="expressions with pairs of operations that are not in train"
    )
    fewest_operations: int = Field(2, ge=1, description="operations of the shortest expressions")
    most_operations: int = Field(4, ge=1, description="operations of the longest expressions")
    modulus: int = Field(10, ge=2, description="all numbers are from 0 to this, less one")
    seed: int = Field(0, ge=0, description="seed of the expressions and of their traces")

    @model_validator(mode="after")
    def _has_lengths(self) -> ArithmeticTraces:
        if self.fewest_operations > self.most_operations:
            raise ValueError(
                f"fewest_operations = {self.fewest_operations}: is more than most_operations = "
                f"{self.most_operations}; set it to that or less"
            )
        if self.out_of_distribution and self.most_operations == 1:
            raise ValueError(
                "most_operations = 1: expressions of one operation have no pairs of operations; "
                "set out_of_distribution=0, or most_operations=2 or more"
            )
        return self

    def __call__(self) -> Splits:
        """Raises `UserError` if there are not as many different expressions as asked for."""
        return Splits(
            train=self._draw("train", self.train),
            held_out=self._draw("held_out", self.held_out),
            out_of_distribution=self._draw("out_of_distribution", self.out_of_distribution),
        )

    def _draw(self, split: str, count: int) -> list[Example]:
        rng, unseen = random.Random(f"{self.seed} {split}"), split == "out_of_distribution"
        found: dict[str, Example] = {}
        in_vain = 0
        while len(found) < count:
            if in_vain == TRIES:
                raise UserError(
                    f"data.{split} = {count}: there are not so many different expressions of "
                    f"{self.fewest_operations} to {self.most_operations} operations modulo "
                    f"{self.modulus}; set data.{split}={len(found)}, or a larger "
                    "data.most_operations or data.modulus"
                )
            in_vain += 1
            tree = self._tree(rng, rng.randint(self.fewest_operations, self.most_operations))
            prompt = f"{write(tree)}="
            if has_unseen(tree) != unseen or is_held_out(prompt) == (split == "train"):
                continue
            if prompt not in found:
                in_vain = 0
                *terms, answer = trace(tree, self.modulus, rng)
                name = f"arithmetic_traces/{split}-{len(found) + 1}"
                completion = "=".join([*terms, answer])
                found[prompt] = Example(name, completion, prompt, check=answer)
        return list(found.values())

    def _tree(self, rng: random.Random, operations: int) -> Tree:
        """Returns a random expression; each split of the operations over the sides is as likely."""
        if not operations:
            return rng.randrange(self.modulus)
        left = rng.randrange(operations)
        return (
            self._tree(rng, left),
            rng.choice(list(OPERATIONS)),
            self._tree(rng, operations - 1 - left),
        )


def write(tree: Tree, *, outermost: bool = True) -> str:
    """Returns the expression as text, with all brackets but the outermost."""
    if isinstance(tree, int):
        return str(tree)
    left, operation, right = tree
    text = f"{write(left, outermost=False)}{operation}{write(right, outermost=False)}"
    return text if outermost else f"({text})"


def trace(tree: Tree, modulus: int, rng: random.Random) -> Iterator[str]:
    """Yields the expression after each operation, down to the answer."""
    while not isinstance(tree, int):
        tree = carry_out(tree, rng.randrange(ready(tree)), modulus)
        yield write(tree)


def ready(tree: Tree) -> int:
    """Returns the number of operations whose operands are both numbers."""
    if isinstance(tree, int):
        return 0
    left, _, right = tree
    return ready(left) + ready(right) or 1


def carry_out(tree: Tree, which: int, modulus: int) -> Tree:
    """Returns the tree with a ready operation replaced by its result; `which` counts from left."""
    assert not isinstance(tree, int)
    left, operation, right = tree
    if isinstance(left, int) and isinstance(right, int):
        return OPERATIONS[operation](left, right) % modulus
    if which < ready(left):
        return carry_out(left, which, modulus), operation, right
    return left, operation, carry_out(right, which - ready(left), modulus)


def has_unseen(tree: Tree) -> bool:
    """Whether an operation and one of its operands' are a pair of `UNSEEN`."""
    if isinstance(tree, int):
        return False
    left, operation, right = tree
    below = [side[1] for side in (left, right) if not isinstance(side, int)]
    if any((operation, inner) in UNSEEN for inner in below):
        return True
    return has_unseen(left) or has_unseen(right)


def is_held_out(prompt: str) -> bool:
    """Whether train never has this expression; the same for every seed."""
    place = int.from_bytes(blake2b(prompt.encode(), digest_size=6).digest()) / 2**48
    return place < HELD_OUT
