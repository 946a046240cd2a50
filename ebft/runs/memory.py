"""Memory of a run: how much is free, what fits into it, and what happens when it is short."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import psutil
import torch

from ebft.checkpoints.checkpointer import Checkpointer
from ebft.checkpoints.state import restore_before_update
from ebft.errors import MemoryShortError, UserError, is_out_of_memory
from ebft.runs.cost import GIB
from ebft.training.parts import LoopParts

if TYPE_CHECKING:
    from ebft.runs.options import StepOptions

SHARE = 0.8
"""How much of the free memory to use: estimates are within 15 %, and others may need some."""
CGROUP = Path("/proc/self/cgroup")
MOUNT = Path("/sys/fs/cgroup")
FILES = {
    "v2": ("memory.max", "memory.current", "inactive_file"),
    "v1": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""What each version of Linux's control groups calls the limit, the use, and what can be freed."""


log = logging.getLogger("ebft")


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """What each process of a run may use, and what it needs.

    `free` bytes were free before any model was loaded. `need` estimates the bytes of a number of
    documents at a time; it raises `ValueError` if that cannot be known.
    """

    training: StepOptions
    need: Callable[[int], float]
    free: int
    processes: int = 1

    def choose_micro_batch(self, *, before: int | None = None) -> int:
        """`training.micro_batch`; for auto, as many of the longest documents as fit.

        `before` is what a resumed run had. If that fits too, it is taken: the results are the same
        to the last bit. Raises `UserError` if the need of a document cannot be estimated.
        """
        chosen = self.training.micro_batch
        if chosen != "auto":
            return chosen
        most = self.training.documents_per_step // self.processes
        try:
            needed = [self.need(count) for count in range(1, most + 1)]
        except ValueError as error:
            raise UserError(f"training.micro_batch = auto: {error}; give a number") from error
        fitting = sum(size <= SHARE * self.free for size in needed)
        size = max(1, fitting)
        if before is not None and 1 <= before <= size:
            log.info("training.micro_batch = auto: %d, as before the run was stopped", before)
            return before
        log.log(
            logging.INFO if fitting else logging.WARNING,
            "training.micro_batch = auto: %d, estimated to need %.1f GiB of the %.1f GiB that are "
            "free",
            size, needed[size - 1] / GIB, self.free / GIB,
        )  # fmt: skip
        return size

    def describe(self, micro_batch: int) -> str:
        """`about 5.7 GiB are needed …, and 3.1 GiB were free`."""
        need = describe_need(self.need, micro_batch)
        return f"{need}, and {self.free / GIB:.1f} GiB were free when the run began"

    def short(self, micro_batch: int) -> MemoryShortError:
        """The error that ends a run, with the numbers and what to lower."""
        advice = [f"training.micro_batch={max(1, micro_batch // 2)}"] if micro_batch > 1 else []
        if not self.training.gradient_checkpointing:
            advice.append("training.gradient_checkpointing=true")
        if self.training.measure_gradients_every is not None:
            advice.append("training.measure_gradients_every=null")
        advice.append("a smaller documents.length, sampler.n or plan.rollout_length")
        need = self.describe(micro_batch)
        return MemoryShortError(f"out of memory: {need}; set {', or '.join(advice)}")


def describe_need(need: Callable[[int], float], micro_batch: int) -> str:
    """`about 5.7 GiB are needed with training.micro_batch = 4`, or why that is not known."""
    try:
        estimate = f"about {need(micro_batch) / GIB:.1f} GiB are needed"
    # A model or a plan that cannot be foreseen may raise anything: no run ends for this line.
    except Exception as error:
        estimate = f"what is needed is not known: {error}"
    return f"{estimate} with training.micro_batch = {micro_batch}"


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


T = TypeVar("T")


class Halving:
    """Does something with half the micro-batch as often as it runs out of memory."""

    def __init__(self, loop: LoopParts, checkpointer: Checkpointer, budget: MemoryBudget) -> None:
        self._loop, self._checkpointer, self._budget = loop, checkpointer, budget

    def __call__(self, do: Callable[[], T]) -> T:
        """What `do` returns. Raises `MemoryShortError` when halving does not help."""
        while True:
            try:
                return do()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                # Processes must stay in step, and one that is out of memory is so by itself.
                alone = self._loop.processes.size == 1
                single = self._loop.micro_batch.documents == 1
                if single or not (alone and self._checkpointer.at_rest()):
                    raise self.memory_short() from error
            # Outside the handler, which holds what the failed attempt has allocated.
            self._halve()

    def memory_short(self) -> MemoryShortError:
        """What ends a run that does not fit, with the numbers."""
        return self._budget.short(self._loop.micro_batch.documents)

    def _halve(self) -> None:
        """Restores the parts' states from before the step."""
        micro_batch = self._loop.micro_batch
        need = self._budget.describe(micro_batch.documents)
        micro_batch.halve()
        log.warning(
            "out of memory: %s; continuing with %d, which changes no result",
            need, micro_batch.documents,
        )  # fmt: skip
        self._loop.optimizer.zero_grad(set_to_none=True)
        restore_before_update(self._loop, self._checkpointer.before)
