"""What EvalPlus's tests use of numpy, in plain Python: programs in the sandbox have no packages.

The text of this file becomes the module `numpy` of such a test. What it does not have makes the
test unusable, which the log says, and not the programs wrong.
"""

from __future__ import annotations

from typing import Any


class ndarray:  # noqa: N801 — numpy's name
    """The class of no value, because tests only ask whether one is an array."""


class testing:  # noqa: N801 — numpy's name
    """numpy.testing."""

    @staticmethod
    def assert_allclose(actual: Any, desired: Any, rtol: float = 1e-07, atol: float = 0.0) -> None:
        """Raises `AssertionError` unless |actual − desired| <= atol + rtol·|desired| everywhere.

        Both are numbers, or nested lists or tuples of the same lengths. NaN equals NaN.
        """
        if not _close(actual, desired, rtol, atol):
            raise AssertionError(f"{actual!r} is not close to {desired!r}")


def _close(actual: Any, desired: Any, rtol: float, atol: float) -> bool:
    if isinstance(actual, list | tuple) or isinstance(desired, list | tuple):
        return (
            isinstance(actual, list | tuple)
            and isinstance(desired, list | tuple)
            and len(actual) == len(desired)
            and all(_close(a, d, rtol, atol) for a, d in zip(actual, desired, strict=True))
        )
    if actual == desired or (actual != actual and desired != desired):
        return True
    size = abs(desired)
    return bool(size < float("inf") and abs(actual - desired) <= atol + rtol * size)


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise ImportError(f"numpy.{name} is not there in the sandbox")
