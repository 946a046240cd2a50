"""Values of a recipe that must be refused with one line."""

from tests.hostile.case import Case

CASES: list[Case] = []
