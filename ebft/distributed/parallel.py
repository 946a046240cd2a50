"""A run of several processes that torchrun has started: joining them, and their collectives."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from pydantic import Field, PositiveInt

from ebft.distributed.processes import ONE_PROCESS, Launch, Processes
from ebft.lazy import Tensor, torch
from ebft.options import Options

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class ParallelOptions(Options):
    """How several processes work together; not used by a single one."""

    replicas: PositiveInt = Field(
        1,
        description="copies of the policy's weights, each sharded over its part of the processes; "
        "use more than 1 (for example one per machine) if gathering weights over all is slow",
    )
    timeout: PositiveInt = Field(
        1800, description="seconds that a process waits for the others before the run ends"
    )


def join(launch: Launch, options: ParallelOptions, device: torch.device) -> Processes:
    """Connects to the other processes, and selects this one's GPU if `device` is a GPU.

    Raises `MissingProcessError` if one of them does not connect in time.
    """
    if launch.size == 1:
        return ONE_PROCESS
    from ebft.distributed.rendezvous import meet, open_store

    if device.type == "cuda":
        torch.cuda.set_device(launch.local_rank)
    timeout = timedelta(seconds=options.timeout)
    store = open_store(timeout)
    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        timeout=timeout,
        # Without the prefix, torch would read addresses that an earlier start has written.
        store=torch.distributed.PrefixStore(meet(store, launch, timeout), store),  # type: ignore[attr-defined]
        rank=launch.rank,
        world_size=launch.size,
    )
    return ManyProcesses(launch, make_mesh(launch.size, options.replicas, device))


def make_mesh(size: int, replicas: int, device: torch.device) -> DeviceMesh:
    """Returns a mesh of one dimension (shards); with replicas of two, (replicas, shards)."""
    from torch.distributed.device_mesh import init_device_mesh

    if replicas == 1:
        return init_device_mesh(device.type, (size,), mesh_dim_names=("shard",))
    return init_device_mesh(
        device.type, (replicas, size // replicas), mesh_dim_names=("replicate", "shard")
    )


class ManyProcesses:
    """The processes of a run through torch.distributed; weights are sharded over `mesh`."""

    def __init__(self, launch: Launch, mesh: DeviceMesh) -> None:
        self.rank, self.size, self.local_size = launch.rank, launch.size, launch.local_size
        self.mesh: DeviceMesh | None = mesh

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, lengths: Sequence[int]) -> list[int]:
        return shares(lengths, self.size)[self.rank]

    def sum(self, values: Tensor) -> Tensor:
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    def gather(self, values: Tensor) -> Tensor:
        values = values.contiguous()
        counts = self._counts(values)
        padded = values.new_empty(max(counts), *values.shape[1:])
        padded[: len(values)] = values
        parts = [torch.empty_like(padded) for _ in counts]
        torch.distributed.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def any(self, flag: bool) -> bool:
        return bool(self.sum(torch.tensor(int(flag))))

    def broadcast(self, text: str | None) -> str | None:
        said = [text]
        torch.distributed.broadcast_object_list(said)
        return said[0]

    def first(self, text: str | None) -> str | None:
        said: list[str | None] = [None] * self.size
        torch.distributed.all_gather_object(said, text)
        numbered = (f"process {rank}: {it}" for rank, it in enumerate(said) if it is not None)
        return next(numbered, None)

    def close(self) -> None:
        torch.distributed.destroy_process_group()

    def own(self, gathered: Tensor, like: Tensor) -> Tensor:
        return torch.split(gathered, self._counts(like))[self.rank]

    def _counts(self, values: Tensor) -> list[int]:
        count = torch.zeros(self.size, dtype=torch.long)
        count[self.rank] = len(values)
        out: list[int] = self.sum(count).tolist()
        return out


def shares(lengths: Sequence[int], parts: int) -> list[list[int]]:
    """Divides indices into parts of equal count and about equal total length.

    Indices are dealt from the longest to the shortest, back and forth over the parts. Each part is
    sorted.
    """
    assert len(lengths) % parts == 0, (len(lengths), parts)
    dealt: list[list[int]] = [[] for _ in range(parts)]
    longest_first = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for at, index in enumerate(longest_first):
        turn, place = divmod(at, parts)
        dealt[place if turn % 2 == 0 else parts - 1 - place].append(index)
    return [sorted(part) for part in dealt]
