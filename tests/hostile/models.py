"""Models, tokenizers and adapters that must be refused with one line."""

from tests.hostile.case import Case

CASES: list[Case] = []
