import math
import random
import re
from collections import Counter

import pytest
from pydantic import ValidationError

from ebft.data.arithmetic_traces import (
    ArithmeticTraces,
    carry_out,
    has_unseen,
    ready,
    trace,
    write,
)
from ebft.errors import UserError
from ebft.verifiers.attempts import Attempt
from ebft.verifiers.functions import final_answer

SPLITS = ArithmeticTraces(train=800, held_out=150, out_of_distribution=150)()
PARTS = {"train": SPLITS.train, "held_out": SPLITS.held_out,
            "out_of_distribution": SPLITS.out_of_distribution}  # fmt: skip
EVERY = [example for part in PARTS.values() for example in part]


def operations(term):
    return sum(term.count(sign) for sign in "+-*")


def terms(example):
    return f"{example.prompt}{example.completion}".split("=")


@pytest.mark.parametrize("modulus", [10, 23])
def test_every_term_has_the_same_value_and_one_operation_less(modulus):
    for example in ArithmeticTraces(train=200, modulus=modulus)().train:
        chain = terms(example)
        assert [operations(term) for term in chain] == list(range(len(chain)))[::-1]
        assert {eval(term) % modulus for term in chain} == {int(example.check)}
        assert all(0 <= int(number) < modulus for number in re.findall(r"\d+", "=".join(chain)))


def test_a_term_replaces_one_operation_by_its_result():
    for example in EVERY[::10]:
        before, after = terms(example)[:2]
        results = []
        for found in re.finditer(r"\((\d[+*-]\d)\)|^(\d[+*-]\d)$", before):
            result = str(eval(found[1] or found[2]) % 10)
            results.append(before[: found.start()] + result + before[found.end() :])
        assert after in results


def test_each_operation_that_is_ready_is_as_likely_to_be_next():
    tree = ((1, "+", 2), "*", ((3, "+", 4), "+", (5, "*", 6)))
    assert ready(tree) == 3
    assert [write(carry_out(tree, which, 10)) for which in range(3)] == [
        "3*((3+4)+(5*6))",
        "(1+2)*(7+(5*6))",
        "(1+2)*((3+4)+0)",
    ]
    rng = random.Random(0)
    first = Counter(next(trace(tree, 10, rng)) for _ in range(900))
    spread = 4 * math.sqrt(900 * 2 / 9)
    assert len(first) == 3
    assert all(abs(count - 300) < spread for count in first.values())


def test_the_number_of_operations_is_that_of_the_options():
    longer = ArithmeticTraces(train=300, fewest_operations=5, most_operations=6)().train
    for examples, wanted in ((SPLITS.train, {2, 3, 4}), (longer, {5, 6})):
        assert {operations(example.prompt) for example in examples} == wanted


def test_products_and_differences_are_nested_out_of_distribution_alone():
    nested = re.compile(r"\*\(\d-\d\)|\(\d-\d\)\*|-\(\d\*\d\)|\(\d\*\d\)-")
    for split in ("train", "held_out"):
        assert not any(nested.search(text) for e in PARTS[split] for text in terms(e))
    # Where the operands are longer expressions, the pattern does not see it.
    assert sum(bool(nested.search(e.prompt)) for e in PARTS["out_of_distribution"]) > 60
    assert has_unseen((1, "+", ((2, "-", (3, "+", 4)), "*", 5)))
    assert not has_unseen(((1, "*", 2), "+", (3, "-", (4, "+", (5, "*", 6)))))


def test_no_expression_of_train_is_held_out_for_any_seed():
    other = ArithmeticTraces(train=3000, held_out=1, out_of_distribution=1, seed=7)().train
    held_out = {example.prompt for example in (*SPLITS.held_out, *SPLITS.out_of_distribution)}
    assert not held_out & {example.prompt for example in (*SPLITS.train, *other)}
    assert len({example.prompt for example in EVERY}) == len(EVERY)


def test_the_same_seed_gives_the_same_texts():
    small = ArithmeticTraces(train=20, held_out=5, out_of_distribution=5)
    assert small() == small()
    assert small().train == ArithmeticTraces(train=30)().train[:20]
    assert small().train != small.model_copy(update={"seed": 1})().train


def test_the_verifier_wants_the_last_number():
    example = SPLITS.train[0]

    def score(rollout):
        return final_answer(
            Attempt(example.prompt, rollout, example.completion, example.check, example.name)
        )

    assert score(example.completion) == 1
    assert score(f"1+1={example.check}") == 1
    assert score(f"{example.completion}={(int(example.check) + 1) % 10}") == 0
    assert score("") == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"fewest_operations": 5}, "fewest_operations = 5: is more than most_operations = 4"),
        ({"fewest_operations": 1, "most_operations": 1}, "set out_of_distribution=0"),
        ({"modulus": 1}, "modulus"),
    ],
)
def test_options_that_have_no_expressions(options, says):
    with pytest.raises(ValidationError, match=says):
        ArithmeticTraces(**options)


def test_more_expressions_than_there_are():
    few = ArithmeticTraces(
        train=2000, fewest_operations=1, most_operations=1, out_of_distribution=0
    )
    with pytest.raises(UserError, match=r"data.train = 2000: there are not so many .* data.train="):
        few()
