"""Where processes meet: the store that torchrun keeps, and a name for each of its starts.

The store outlives the processes: after a restart it still has what the earlier ones have written.
Nor does its count of restarts tell the starts apart, for every machine has its own.
"""

from __future__ import annotations

import os
import time
from datetime import timedelta
from uuid import uuid4

from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from ebft.distributed.processes import Launch
from ebft.errors import MissingProcessError

EVERY = 0.05
"""Seconds between two looks at who has come."""
LONGER = 5.0
"""Seconds that the others wait for the first one's answer, beyond those that it waits for them."""


def open_store(timeout: timedelta) -> TCPStore:
    """A connection of this process's own to torchrun's store; what is not there in time raises."""
    return TCPStore(
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=timeout
    )


def meet(store: Store, launch: Launch, timeout: timedelta) -> str:
    """Waits for all processes of this start, and returns a name that only they have.

    Each says under its number who it is, and the first answers whoever it finds there, until all
    have had an answer: one that it finds may be of an earlier start, and gone. Raises
    `MissingProcessError` if one does not come in time. The first knows which, and so speaks first.
    """
    name, until = uuid4().hex, time.monotonic() + timeout.total_seconds()
    if launch.rank > 0:
        store.set(f"ebft/here/{launch.rank}", name)
        while not store.check([f"ebft/answer/{name}"]):
            wait(until + LONGER, missing=0)
        name = store.get(f"ebft/answer/{name}").decode()
        store.set(f"ebft/{name}/here/{launch.rank}", "")
        return name
    missing = list(range(1, launch.size))
    while missing:
        for rank in list(missing):
            if store.check([f"ebft/{name}/here/{rank}"]):
                missing.remove(rank)
            elif store.check([f"ebft/here/{rank}"]):
                store.set(f"ebft/answer/{store.get(f'ebft/here/{rank}').decode()}", name)
        if missing:
            wait(until, missing=missing[0])
    return name


def wait(until: float, *, missing: int) -> None:
    """A moment; raises `MissingProcessError` if it is too late for process `missing` to come."""
    if time.monotonic() > until:
        raise MissingProcessError(
            f"the other processes timed out waiting: process {missing} has not come"
        )
    time.sleep(EVERY)
