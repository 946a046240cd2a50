"""The processes that train together, as the loop and its parts use them.

A step's documents are divided over the processes. Every loss is divided by counts over the whole
step and gradients are summed, so the result does not depend on the number of processes. Code that
needs the contexts of a whole step gathers those of the other processes here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

from ebft.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed.device_mesh import DeviceMesh


@dataclass(frozen=True, slots=True)
class Launch:
    """The rank of this process and the number of processes, of the run and (`local_`) of this
    machine."""

    rank: int
    local_rank: int
    local_size: int
    size: int

    @classmethod
    def of_environment(cls) -> Self:
        """Reads the environment variables of torchrun; without them, this is the only process.

        Raises `UserError` if several processes were not started by torchrun.
        """
        say = os.environ.get
        if int(say("WORLD_SIZE", "1")) > 1 and say("TORCHELASTIC_USE_AGENT_STORE") != "True":
            raise UserError(
                f"WORLD_SIZE = {say('WORLD_SIZE')}: several processes are started by torchrun; "
                "use `tune run --nproc_per_node N FILE`"
            )
        return cls(
            rank=int(say("RANK", "0")),
            local_rank=int(say("LOCAL_RANK", "0")),
            local_size=int(say("LOCAL_WORLD_SIZE", "1")),
            size=int(say("WORLD_SIZE", "1")),
        )


@runtime_checkable
class Processes(Protocol):
    """Collectives over all processes; each process must call the same ones, in the same order.

    `local_size` is the number of processes on this machine. Weights are sharded over `mesh`, which
    is None if there is only one process.
    """

    rank: int
    size: int
    local_size: int
    mesh: DeviceMesh | None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes, logs and prints."""
        ...

    def share(self, lengths: Sequence[int]) -> list[int]:
        """Returns the indices of this process's share of a step's documents, given their lengths.

        Shares have equal counts and about equal total lengths. The number of documents must be a
        multiple of the number of processes.
        """
        ...

    def sum(self, values: Tensor) -> Tensor:
        """Returns the elementwise sum of all processes' values."""
        ...

    def gather(self, values: Tensor) -> Tensor:
        """Returns all processes' values, concatenated along the first dimension."""
        ...

    def any(self, flag: bool) -> bool:
        """Returns whether the flag is set on at least one process."""
        ...

    def broadcast(self, text: str | None) -> str | None:
        """Returns the main process's text; those of the others are ignored."""
        ...

    def first(self, text: str | None) -> str | None:
        """Returns the text of the first process that has one, after the process's number; None if
        none of them has one."""
        ...

    def close(self) -> None:
        """Closes the connection to the other processes, at the end of a run."""
        ...

    def own(self, gathered: Tensor, like: Tensor) -> Tensor:
        """Returns this process's rows of a tensor that was computed from a `gather` of `like`."""
        ...


class OneProcess:
    """The only process of a run."""

    mesh: DeviceMesh | None = None
    rank, size, local_size, is_main = 0, 1, 1, True

    def share(self, lengths: Sequence[int]) -> list[int]:
        return list(range(len(lengths)))

    def sum(self, values: Tensor) -> Tensor:
        return values

    def gather(self, values: Tensor) -> Tensor:
        return values

    def any(self, flag: bool) -> bool:
        return flag

    def broadcast(self, text: str | None) -> str | None:
        return text

    def first(self, text: str | None) -> str | None:
        return text

    def close(self) -> None:
        pass

    def own(self, gathered: Tensor, like: Tensor) -> Tensor:  # noqa: ARG002
        return gathered


ONE_PROCESS = OneProcess()
