"""The processes that train together, as the loop and its parts see them.

A step's documents are divided over the processes. Every loss is divided by counts over the whole
step and gradients are summed, so one process and many compute the same; whatever needs the contexts
of a whole step asks here for those of the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from ebft.errors import UserError

if TYPE_CHECKING:  # records are made of what parts register, and parts name processes
    from ebft.rollout.records import Document, Terms

    Baseline = Callable[[Terms], Float[Tensor, "P n"]]


@dataclass(frozen=True, slots=True)
class Launch:
    """Which of how many processes this one is; `local_rank` counts the `local_size` of its machine.

    `attempt` counts how often torchrun has started them anew.
    """

    rank: int
    local_rank: int
    local_size: int
    size: int
    attempt: int

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
            attempt=int(say("TORCHELASTIC_RESTART_COUNT", "0")),
        )


@runtime_checkable
class Processes(Protocol):
    """What may be asked of all processes; each of them has to ask the same, in the same order.

    `neighbours` counts those on this one's machine, itself among them.
    """

    rank: int
    size: int
    neighbours: int

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes, logs and prints."""
        ...

    def share(self, documents: Sequence[Document]) -> list[Document]:
        """This process's part of a step: as many documents as every other's, and about as long.

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

    def told(self, text: str | None) -> str | None:
        """What the main process says; what the others would say does not matter."""
        ...

    def leave(self) -> None:
        """Takes leave of the others, when all is done."""
        ...

    def pooled(self, baseline: Baseline, terms: Terms) -> Float[Tensor, "P n"]:
        """This process's advantages when the baseline is given the terms of all processes."""
        ...


class OneProcess:
    """A process by itself: everything is its own."""

    rank, size, neighbours, is_main = 0, 1, 1, True

    def share(self, documents: Sequence[Document]) -> list[Document]:
        return list(documents)

    def sum(self, values: Tensor) -> Tensor:
        return values

    def gather(self, values: Tensor) -> Tensor:
        return values

    def any(self, flag: bool) -> bool:
        return flag

    def told(self, text: str | None) -> str | None:
        return text

    def leave(self) -> None:
        pass

    def pooled(self, baseline: Baseline, terms: Terms) -> Float[Tensor, "P n"]:
        return baseline(terms)


ALONE = OneProcess()
