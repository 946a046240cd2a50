"""The rendezvous of processes in torchrun's store, which gives each start a unique name.

The store outlives the processes: after a restart it still has the keys of earlier starts. The
restart count cannot distinguish starts, because every machine counts its own.
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
"""Seconds between two polls of the store."""
LONGER = 5.0
"""Seconds that the others wait longer than rank 0, so that rank 0 reports what is missing."""


def open_store(timeout: timedelta) -> TCPStore:
    """Opens a new connection to torchrun's store. Reading a key that is not set within `timeout`
    raises."""
    return TCPStore(
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=timeout
    )


def meet(store: Store, launch: Launch, timeout: timedelta) -> str:
    """Waits for all processes of this start, and returns a name that only they share.

    Each process writes a random name under its rank, and rank 0 answers the names that it finds,
    until every rank has acknowledged an answer. A name that it finds may be left from an earlier
    start. Raises `MissingProcessError` if a process does not come in time.
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
    """Sleeps until the next poll. Raises `MissingProcessError` naming `missing` after `until`."""
    if time.monotonic() > until:
        raise MissingProcessError(
            f"the other processes timed out waiting: process {missing} has not come"
        )
    time.sleep(EVERY)
