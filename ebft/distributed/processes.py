"""The processes that train together, as the loop and its parts see them.

A step's documents are divided over the processes. Every loss is divided by counts over the whole
step and gradients are summed, so one process and many compute the same; whatever needs the contexts
of a whole step asks here for those of the others.
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
    """Which of how many processes this one is; `local_rank` counts those of its machine."""

    rank: int
    local_rank: int
    local_size: int
    size: int

    @classmethod
    def of_environment(cls) -> Self:
        """What torchrun has told this process; a single one if nothing has.

        Raises `UserError` if something else than torchrun has started several.
        """
        say = os.environ.get
        if int(say("WORLD_SIZE", "1")) > 1 and say("TORCHELASTIC_USE_AGENT_STORE") != "True":
            raise UserError(
                f"WORLD_SIZE = {say('WORLD_SIZE')}: several processes are started by torchrun; "
                "say `tune run --nproc_per_node N FILE`"
            )
        return cls(
            rank=int(say("RANK", "0")),
            local_rank=int(say("LOCAL_RANK", "0")),
            local_size=int(say("LOCAL_WORLD_SIZE", "1")),
            size=int(say("WORLD_SIZE", "1")),
        )


@runtime_checkable
class Processes(Protocol):
    """What may be asked of all processes; each of them has to ask the same, in the same order.

    `local_size` counts those on this one's machine, itself among them; `mesh` is over which of them
    weights are divided, None if there is one process alone.
    """

    rank: int
    size: int
    local_size: int
    mesh: DeviceMesh | None

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes, logs and prints."""
        ...

    def share(self, lengths: Sequence[int]) -> list[int]:
        """Which of a step's documents, of so many tokens each, are this process's: as many as every
        other's, and about as long.

        The number of documents is a multiple of the number of processes.
        """
        ...

    def sum(self, values: Tensor) -> Tensor:
        """The sum of all processes' values, elementwise."""
        ...

    def gather(self, values: Tensor) -> Tensor:
        """All processes' values, one after another along the first dimension."""
        ...

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on one of them."""
        ...

    def broadcast(self, text: str | None) -> str | None:
        """What the main process says; what the others would say does not matter."""
        ...

    def close(self) -> None:
        """Takes leave of the others, when all is done."""
        ...

    def own(self, gathered: Tensor, like: Tensor) -> Tensor:
        """This process's rows of what was made of a `gather`: those that came from `like`."""
        ...


class OneProcess:
    """A process by itself: everything is its own."""

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

    def close(self) -> None:
        pass

    def own(self, gathered: Tensor, like: Tensor) -> Tensor:  # noqa: ARG002
        return gathered


ONE_PROCESS = OneProcess()
