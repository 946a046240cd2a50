"""What stands beside every figure: the code that it is of, and the machine."""

import os
import platform
import subprocess
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]


def commit() -> str:
    """The commit that is checked out; `-dirty` if files of it have changed."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # a copy of the files without git
        return "unknown"
    return run.stdout.strip()


def cpu() -> str:
    """The processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def hardware(device: str = "cpu") -> str:
    """The GPU; or the processor, its cores, and how many threads torch uses."""
    if device != "cpu":
        return str(torch.cuda.get_device_name(device))
    return f"{cpu()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def wait_for(device: str) -> None:
    """Returns when everything that was launched on a device is done."""
    if device != "cpu":
        torch.cuda.synchronize()
