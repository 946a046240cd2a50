"""Peak memory of a piece of work: of the resident set on a CPU, of what is allocated on a GPU."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import torch

MIB = 2**20


def peak_memory(work: Callable[[], object], device: str = "cpu") -> int:
    """Bytes at the peak of `work` above what there is before it."""
    gc.collect()
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    # What earlier work freed would be used again and not be seen: give it back first.
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _resident("VmRSS")
    work()
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) * 1024
