"""Packages that only some recipes need: which extra of ebft installs each."""

from __future__ import annotations

from importlib.util import find_spec

EXTRAS = {
    "lm_eval": "harness",
    "peft": "lora",
    "polib": "translation",
    "sacrebleu": "eval",
    "tensorboard": "logging",
    "torchao": "qlora",
    "torchtune": "torchtune",
    "wandb": "logging",
}
"""The extra in pyproject.toml for each package, by the name it is imported by."""


def missing(package: str) -> str | None:
    """Returns one line that says that a package of `EXTRAS` is not installed, with the command that
    installs it; None if Python finds the package. It is not imported.
    """
    if package not in EXTRAS or find_spec(package) is not None:
        return None
    return f"needs {package}, which is not installed; run: {install(package)}"


def install(package: str) -> str:
    """Returns the command that installs a package of `EXTRAS`."""
    return f"pip install 'ebft[{EXTRAS[package]}]'"
