"""The environment of a run: commit, versions, hardware; and the command that started it."""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Self

import psutil
from pydantic import TypeAdapter

from ebft.errors import UserError
from ebft.files import Text, read_lines
from ebft.parts.version import PACKAGE, __version__
from ebft.printable import printable

PACKAGES = ("torch", "transformers", "datasets")
FILE = "environment.jsonl"
COMMANDS = ("ebft", "tune")
MAIN = "ebft.cli.main"
"""The module of the command `ebft`."""
NOTEBOOK = "ipykernel_launcher.py"
"""The program that runs the cells of a notebook."""


def command_line() -> str:
    """The command of this process, as it is typed: of `ebft`, of `tune`, or of another program."""
    program, *arguments = sys.argv
    file = Path(program)
    if file.name in COMMANDS:
        return printable(shlex.join([file.name, *arguments]))
    if file.is_relative_to(PACKAGE):  # python -m
        module = ".".join((PACKAGE.name, *file.relative_to(PACKAGE).with_suffix("").parts))
        started = ["ebft"] if module == MAIN else ["python", "-m", module]
        return printable(shlex.join([*started, *arguments]))
    if file.name == NOTEBOOK:
        return "a notebook"
    return printable(shlex.join(["python", file.name, *arguments]))


def merged(found: Iterable[Mapping[str, str]]) -> dict[str, list[str]]:
    """All values by name, so that differences show.

    >>> merged([{"torch": "2.11", "ebft": "1"}, {"torch": "2.12", "ebft": "1"}])
    {'torch': ['2.11', '2.12'], 'ebft': ['1']}
    """
    values: dict[str, dict[str, None]] = {}
    for one in found:
        for name, value in one.items():
            values.setdefault(name, {})[value] = None
    return {name: list(several) for name, several in values.items()}


@cache
def surroundings() -> dict[str, str]:
    """The environment by name, for the report. It contains no names of machines or people."""
    return {
        "ebft": f"{__version__}{_commit()}",
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "hardware": _hardware(),
    }


def _commit() -> str:
    try:
        # Fails if the repository around the package is not ebft's.
        _git("ls-files", "--error-unmatch", "__init__.py")
        return f", commit {_git('describe', '--always', '--dirty', '--abbrev=10')}"
    except (OSError, subprocess.CalledProcessError):
        return ""  # installed from a wheel: the version says it


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(PACKAGE), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _hardware() -> str:
    import torch

    cores = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else 0
    memory = psutil.virtual_memory().total / 2**30
    parts = [f"{cores or psutil.cpu_count()} cores ({_processor()})", f"{memory:.0f} GiB"]
    if torch.cuda.is_available():
        parts.append(f"{torch.cuda.device_count()} × {torch.cuda.get_device_name()}")
    return ", ".join(parts)


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    if file.exists():
        for line in file.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@dataclass(frozen=True, slots=True)
class Started:
    """The start of a run, or one that resumed it: a line of `environment.jsonl` in its folder."""

    what: Text
    command: Text
    at: Text
    surroundings: Mapping[Text, Text]

    @classmethod
    def now(cls, what: str) -> Self:
        """This process and this moment; `what` is the run's title."""
        at = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z")
        return cls(what, command_line(), at, surroundings())

    def append_to(self, file: Path) -> None:
        """Appends the line. Raises `OSError` if it cannot be written."""
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(self)) + "\n")


STARTED = TypeAdapter(Started)


def read_starts(file: Path) -> list[Started]:
    """Returns the starts of a run in order; none without a file.

    Raises `UserError` naming the first damaged line.
    """
    try:
        return [started for started, _ in read_lines(file, STARTED)]
    except ValueError as error:
        raise UserError(
            f"{file} is damaged: {error}; delete it: it is only used for report.html"
        ) from error
