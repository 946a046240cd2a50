"""Damaged run folders, checkpoints and studies that must be refused with one line."""

from tests.hostile.case import Case

CASES: list[Case] = []
