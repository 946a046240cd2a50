"""Parses numbers in texts, as people and models write answers."""

from __future__ import annotations

import re
from fractions import Fraction

LONGEST = 40
"""Largest number of characters of a number."""
MINUS = "-\N{MINUS SIGN}\N{FULLWIDTH HYPHEN-MINUS}"
DASHES = f"{MINUS}\N{EN DASH}\N{EM DASH}"
CURRENCY = r"(?:\\?[$€£¥₹][ ]?)"
SPACES = "\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}"

NUMBER = re.compile(
    rf"""
    (?P<sign>(?<![\w.%)\]}}])[{MINUS}]|(?<=[=:(])[ ]?[{MINUS}][ ]?)?  # not of a range, 10-15
    {CURRENCY}?(?P<inner>(?<=[$€£¥₹ ])[{MINUS}])?
    (?:
        (?:(?P<whole>\d+)[ ])?(?P<part>\d+)/(?P<of>\d+)(?![\d/])
      | (?P<digits>(?:\d{{1,3}}(?:[,{SPACES}]\d{{3}})+(?!\d)|\d+)(?:\.\d+)?|(?<!\w)\.\d+)
        (?P<exponent>[eE][+-]?\d+)?
    )
    """,
    re.VERBOSE,
)
SPACED_SIGN = re.compile(rf"^\s*[{MINUS}]\s*(?={CURRENCY}?[\d.])")
SPACED_THOUSANDS = re.compile(r"(?<![\d.])\d{1,3}(?: \d{3})+(?!\d)")
NOT_ALONE = re.compile(rf"\s*(?:[{DASHES}]|to\b|or\b)\s*{CURRENCY}?\d|[.,]\d")
"""Text after a number that makes it one of several: a range, a choice, a decimal comma."""


def last_number(text: str) -> Fraction | None:
    """Returns the last number in a text; None if there is none, or if it is not finite."""
    found = list(NUMBER.finditer(text))
    return _value(found[-1]) if found else None


def answer_number(text: str) -> Fraction | None:
    """Returns the first number in a text: `$1,000`, `− 3`, `1/2`, `50 %`, `18 eggs`.

    None if there is none, or if it is ambiguous: `10-15`, `10 or 12`, `1.000,50`.
    """
    text = SPACED_SIGN.sub("-", text)
    text = SPACED_THOUSANDS.sub(lambda found: found[0].replace(" ", ""), text, count=1)
    if not (found := NUMBER.search(text)) or NOT_ALONE.match(text, found.end()):
        return None
    before = text[: found.start()].rstrip(" \t")
    if found.start() and text[found.start() - 1] in DASHES and not before[:-1].strip():
        return None  # –3: a minus or a dash
    return _value(found)


def only_number(text: str) -> Fraction | None:
    """Returns `answer_number` of a text that has no other number; else None."""
    number = answer_number(text)
    count = len(NUMBER.findall(SPACED_THOUSANDS.sub("1", text)))
    return number if count == 1 else None


def _value(found: re.Match[str]) -> Fraction | None:
    if len(found[0]) > LONGEST or len(found["exponent"] or "") > len("e-100"):
        return None
    if found["digits"] is None:
        if not (of := int(found["of"])):
            return None
        value = int(found["whole"] or 0) + Fraction(int(found["part"]), of)
    else:
        digits = re.sub(rf"[,{SPACES}]", "", found["digits"])
        value = Fraction(digits + (found["exponent"] or ""))
    return -value if found["sign"] or found["inner"] else value
