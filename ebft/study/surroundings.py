"""The environment of a run: commit, versions, hardware."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import psutil

from ebft.version import PACKAGE, __version__

PACKAGES = ("torch", "transformers", "datasets")


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
