"""Answers as people and models write them: read rightly, or as none where it is not clear which."""

from fractions import Fraction

import pytest

from ebft.errors import UserError
from ebft.verifiers.attempts import Attempt
from ebft.verifiers.functions import final_answer
from ebft.verifiers.numbers import answer_number, last_number, only_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("72", 72),
        ("72.", 72),
        ("+5", 5),
        (".5", Fraction(1, 2)),
        ("70,000.50", Fraction("70000.5")),
        ("1 000 000", 10**6),
        ("1\N{NARROW NO-BREAK SPACE}000", 1000),
        ("$ 1,000", 1000),
        ("-$5", -5),
        ("$-5", -5),
        ("-\\$5", -5),
        ("US$5 each", 5),
        ("€3", 3),
        ("-3", -3),
        ("\N{MINUS SIGN}3", -3),
        ("- 3", -3),
        ("\N{MINUS SIGN} $3", -3),
        ("\N{EN DASH} 3", 3),
        ("50%", 50),
        ("1/2", Fraction(1, 2)),
        ("-1/2", Fraction(-1, 2)),
        ("2 1/2 cups", Fraction(5, 2)),
        ("1e3", 1000),
        ("18 eggs (3*6)", 18),
        ("5-year", 5),
        ("\N{ARABIC-INDIC DIGIT THREE}", 3),
        ("10-15", None),
        ("10 \N{EN DASH} 15", None),
        ("$10 to $15", None),
        ("10 or 12", None),
        ("\N{EN DASH}3", None),
        ("1.000,50", None),
        ("3,5", None),
        ("1/0", None),
        ("1e999999999", None),
        ("7" * 5000, None),
        ("five", None),
        ("-", None),
    ],
)
def test_an_answer(text, number):
    assert answer_number(text) == number
    assert answer_number(f"\n {text}\nQuestion: 7") == (7 if text in "five-" else number)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 10-5=5", 5),
        ("so 5-10 = -5", -5),
        ("so 5 - 10 = - 5", -5),
        ("between 10-15", 15),
        ("x-3", 3),
        ("(2)-3", 3),
        ("1,2,3", 3),
        ("in 2019 500", 500),
        ("1,000,000 in all", 10**6),
        ("\\boxed{42}", 42),
        ("**42**.", 42),
        ("it is −3.", -3),
        ("nothing", None),
    ],
)
def test_the_last_number_of_a_text(text, number):
    assert last_number(text) == number


@pytest.mark.parametrize("check", ["10-15", "5 or 6", "12:30", "3 of 4", "1,000,00", "x", ""])
def test_a_check_is_one_number(check):
    assert only_number(check) is None
    with pytest.raises(UserError, match=r"the check of document a\.jsonl:7 is not one number: "):
        final_answer(Attempt("", "5", "", check, "a.jsonl:7"))


def test_what_is_not_clear_is_not_right():
    for rollout, check in [("#### 10-15", "10"), ("#### 10-15", "15"), ("#### 12 or 13", "12")]:
        assert final_answer(Attempt("", rollout, "", check, "d")) == 0
    assert final_answer(Attempt("", "5, so\n#### ", "", "5", "d")) == 0
