"""The memory of a run: how much is free, how large micro-batches can be, and running out of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import psutil

from ebft.data.on_demand import OnDemand
from ebft.errors import MemoryShortError, UserError, is_out_of_memory
from ebft.lazy import torch
from ebft.models.cost import GIB
from ebft.parts.interfaces import Plan
from ebft.rollout.micro_batches import MicroBatch
from ebft.runs.estimate import memory_need, recipe_tree, tree_of

if TYPE_CHECKING:
    from ebft.checkpoints.checkpointer import Checkpointer
    from ebft.distributed.processes import Processes
    from ebft.rollout.records import Document
    from ebft.runs.estimate import MemoryNeed
    from ebft.runs.options import FineTuneOptions, StepOptions
    from ebft.training.parts import LoopParts

SHARE = 0.8
"""The fraction of the free memory to use: estimates may be 15 % too low, and other programs run."""
CGROUP = Path("/proc/self/cgroup")
MOUNT = Path("/sys/fs/cgroup")
FILES = {
    "v2": ("memory.max", "memory.current", "inactive_file"),
    "v1": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""The names of the limit, the use and the reclaimable part in each version of Linux's cgroups."""


log = logging.getLogger("ebft")


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """The memory that each process of a run may use, and what it needs.

    `free` bytes were free before any model was loaded. `need` estimates the bytes for a number of
    documents at a time; it raises `ValueError` if it cannot.
    """

    training: StepOptions
    need: MemoryNeed
    free: int
    processes: int = 1

    def choose_micro_batch(self, *, before: int | None = None) -> int:
        """`training.micro_batch`, or the documents of a process's step if these are fewer; for
        auto, the number of the longest documents that fit.

        `before` is the number of a resumed run. It is kept if it fits, so that results are bitwise
        the same. Raises `UserError` if the need cannot be estimated.
        """
        most = self.training.largest_micro_batch(self.processes)
        if self.training.micro_batch != "auto":
            return most
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

    def keeps_logits(self, micro_batch: int) -> bool:
        """`training.keep_logits`; for auto, whether they fit too."""
        keep = self.training.keep_logits
        if keep != "auto":
            return keep
        try:
            return self.need(micro_batch, keep_logits=True) <= SHARE * self.free
        except ValueError:  # what cannot be estimated may not fit
            return False

    def describe(self, micro_batch: int) -> str:
        """A message such as `about 5.7 GiB are needed …, and 3.1 GiB were free`."""
        need = describe_need(self.need, micro_batch)
        return f"{need}, and {self.free / GIB:.1f} GiB were free when the run began"

    def short(self, micro_batch: int) -> MemoryShortError:
        """The error that ends a run, with the estimate and the options to lower."""
        advice = [f"training.micro_batch={max(1, micro_batch // 2)}"] if micro_batch > 1 else []
        if self.training.keep_logits is True:
            advice.append("training.keep_logits=auto")
        if not self.training.gradient_checkpointing:
            advice.append("training.gradient_checkpointing=true")
        if self.training.measure_gradients_every is not None:
            advice.append("training.measure_gradients_every=null")
        advice.append("a smaller documents.length, sampler.n or plan.rollout_length")
        need = self.describe(micro_batch)
        return MemoryShortError(f"out of memory: {need}; set {', or '.join(advice)}")


def make_micro_batch(
    budget: MemoryBudget, processes: Processes, *, before: int | None
) -> MicroBatch:
    """The micro-batch of the recipe, or for auto one that fits: `before`, if that fits."""
    documents = budget.choose_micro_batch(before=before)
    # The smallest of all processes, because they compute micro-batches in lockstep.
    return MicroBatch(int(processes.gather(torch.tensor([documents])).min()))


def with_turns(
    budget: MemoryBudget, options: FineTuneOptions, documents: Sequence[Document]
) -> MemoryBudget | None:
    """The budget for conversations, if one needs more memory than the longest document of one
    turn, for which the budget is; otherwise None."""
    plan, sampler = options.plan, options.sampler
    if isinstance(documents, OnDemand) or sampler is None or not isinstance(plan, Plan):
        return None  # on demand, each turn is a document
    of_turn = sampler.n * plan.rollout_length
    largest = max(documents, key=lambda it: it.tokens.numel() + of_turn * len(it.turns))
    longest = recipe_tree(options)
    tree = tree_of(largest, plan, sampler, on_rows=longest.on_rows)
    if not largest.turns or tree.columns <= longest.columns:
        return None
    if options.training.micro_batch == "auto":
        log.info(
            "%s is a conversation of %d turns, which needs more memory",
            largest.name,
            len(largest.turns),
        )
    return replace(budget, need=memory_need(options, processes=budget.processes, tree=tree))


def describe_need(need: Callable[[int], float], micro_batch: int) -> str:
    """A message such as `about 5.7 GiB are needed with training.micro_batch = 4`.

    If the need cannot be estimated, the message says why.
    """
    how = f"with training.micro_batch = {micro_batch}"
    try:
        return f"about {need(micro_batch) / GIB:.1f} GiB are needed {how}"
    # A user's model or plan may raise any error, and a run must not fail because of a message.
    except Exception as error:
        return f"what is needed {how} is not known ({error})"


def free_memory(device: torch.device, *, local_size: int = 1) -> int:
    """Bytes that this process can still allocate: on its GPU, or its share of the machine's memory.

    `local_size` is the number of processes of this run on the machine.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    # The machine's figure does not include the limit of a container.
    return int(min(psutil.virtual_memory().available, container_room()) / local_size)


def container_room(cgroup: Path = CGROUP, mount: Path = MOUNT) -> float:
    """Bytes that this process can allocate within its control groups; infinity without a limit."""
    return min(
        (_room(folder, version) for folder, version in _groups(cgroup, mount)), default=math.inf
    )


def _groups(cgroup: Path, mount: Path) -> Iterator[tuple[Path, str]]:
    """The group of this process and its ancestors. In a container its own group may be the root."""
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
    except (OSError, ValueError):  # a group without the memory controller
        return math.inf


T = TypeVar("T")


class Halving:
    """Calls a function, and again with half the micro-batch while it runs out of memory."""

    def __init__(self, loop: LoopParts, checkpointer: Checkpointer, budget: MemoryBudget) -> None:
        self._loop, self._checkpointer, self._budget = loop, checkpointer, budget

    def __call__(self, do: Callable[[], T]) -> T:
        """Returns `do()`. Raises `MemoryShortError` if halving does not help."""
        while True:
            try:
                return do()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                # Several processes must agree on the micro-batch, but only one ran out of memory.
                alone = self._loop.processes.size == 1
                single = self._loop.micro_batch.documents == 1
                if single or not (alone and self._checkpointer.at_rest()):
                    raise self.memory_short() from error
            # Outside the handler, whose traceback keeps the tensors of the failed attempt alive.
            self._halve()

    def memory_short(self) -> MemoryShortError:
        """The error for a run that does not fit, with the estimate."""
        return self._budget.short(self._loop.micro_batch.documents)

    def _halve(self) -> None:
        """Halves the micro-batch, and restores the states of the parts from before the step."""
        from ebft.checkpoints.state import restore_before_update

        micro_batch = self._loop.micro_batch
        need = self._budget.describe(micro_batch.documents)
        micro_batch.halve()
        log.warning(
            "out of memory: %s; continuing with %d, which changes no result",
            need, micro_batch.documents,
        )  # fmt: skip
        self._loop.optimizer.zero_grad(set_to_none=True)
        restore_before_update(self._loop, self._checkpointer.before)
