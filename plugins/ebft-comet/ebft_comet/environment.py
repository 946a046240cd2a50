"""The environment that has unbabel-comet: its Python, and what it lacks."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

VARIABLE = "EBFT_COMET_PYTHON"
PACKAGE = "unbabel-comet"
TESTED = "2.2.7"
SETUPTOOLS = "'setuptools<81'"  # unbabel-comet's torchmetrics imports what later ones lack
INSTALL = f"pip install {PACKAGE}=={TESTED} {SETUPTOOLS}"
MAKE = (
    f"python3 -m venv comet-env && comet-env/bin/{INSTALL}, and set {VARIABLE}=comet-env/bin/python"
)
VERSION = f"from importlib.metadata import version; print(version({PACKAGE!r}))"
SECONDS = 120


def python_of(option: Path | None) -> Path | None:
    """Returns the Python that the option names, else the environment variable; None if neither."""
    found = option or os.environ.get(VARIABLE)
    # Not resolved: a virtual environment's Python is a link, and is one by its own path alone.
    return Path(found).expanduser().absolute() if found else None


def lacks(option: Path | None) -> str | None:
    """Returns why COMET cannot run, and the command that helps; None if it can."""
    python = python_of(option)
    if python is None:
        return f"COMET needs an environment of its own, and `python` names none; run: {MAKE}"
    if not python.is_file():
        return f"python = {python}: there is no such file; run: {MAKE}"
    if version_in(python) is None:
        return f"python = {python}: has no {PACKAGE}; run: {python} -m {INSTALL}"
    return None


@cache
def version_in(python: Path) -> str | None:
    """Returns the version of unbabel-comet that a Python finds; None if it finds none, or does not
    run."""
    try:
        done = subprocess.run(
            [python, "-I", "-c", VERSION], capture_output=True, text=True, timeout=SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
