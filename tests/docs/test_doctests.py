"""Examples in docstrings are true."""

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest

import ebft

PACKAGE = Path(ebft.__file__).parent
MODULES = [
    ".".join(("ebft", *file.relative_to(PACKAGE).with_suffix("").parts))
    for file in sorted(PACKAGE.rglob("*.py"))
    if re.search(r"^ +>>> ", file.read_text(encoding="utf-8"), re.MULTILINE)
]


@pytest.mark.parametrize("module", MODULES)
def test_examples(module):
    results = doctest.testmod(import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.attempted > 0
    assert results.failed == 0


def test_there_are_some():
    assert len(MODULES) >= 5
