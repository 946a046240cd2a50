"""How much memory this process can still get: of a GPU, of the machine, of its container."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

CGROUP = Path("/proc/self/cgroup")
MOUNT = Path("/sys/fs/cgroup")
FILES = {
    "v2": ("memory.max", "memory.current", "inactive_file"),
    "v1": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""What each version of Linux's control groups calls the limit, the use, and what can be freed."""


def free_memory(device: torch.device, *, local_size: int = 1) -> int:
    """Bytes that this process can still get: of its GPU, or its part of the machine's memory.

    `local_size` counts the processes of this run on the machine.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    # The machine's figure knows nothing of the limit that a container has.
    return int(min(psutil.virtual_memory().available, container_room()) / local_size)


def container_room(cgroup: Path = CGROUP, mount: Path = MOUNT) -> float:
    """Bytes that the control groups around this process leave it; infinity without a limit."""
    return min(
        (_room(folder, version) for folder, version in _groups(cgroup, mount)), default=math.inf
    )


def _groups(cgroup: Path, mount: Path) -> Iterator[tuple[Path, str]]:
    """The group of this process and those around it. A container may see its own as the root."""
    if not cgroup.exists():
        return
    for line in cgroup.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, version = mount, "v2"
        elif "memory" in controllers.split(","):
            root, version = mount / "memory", "v1"
        else:
            continue
        own = root / path.lstrip("/")
        for folder in (own, *own.parents):
            if folder.is_relative_to(root):
                yield folder, version


def _room(folder: Path, version: str) -> float:
    limit_file, use_file, cached = FILES[version]
    try:
        limit = (folder / limit_file).read_text().strip()
        if limit == "max":
            return math.inf
        use = int((folder / use_file).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return int(limit) - use + int(stat.get(cached, 0))
    except (OSError, ValueError):  # not a group that accounts for memory
        return math.inf
