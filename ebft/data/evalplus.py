"""EvalPlus's tests: programs that compare many results with numpy."""

from __future__ import annotations

from functools import cache
from pathlib import Path

NUMPY = Path(__file__).with_name("numpy_of_tests.py")
"""Its text runs in the sandbox, as the module `numpy`."""


def with_numpy(tests: str) -> str:
    """Returns tests that import numpy as tests that run in the sandbox."""
    return f"{_numpy()}\n{tests}"


@cache
def _numpy() -> str:
    text = NUMPY.read_text(encoding="utf-8")
    return (
        "import sys\n"
        'sys.modules["numpy"] = type(sys)("numpy")\n'
        f'exec({text!r}, sys.modules["numpy"].__dict__)'
    )
