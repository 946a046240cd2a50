"""What torchrun starts anew has nothing to do with what it started before, though its store has."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import TCPStore

from ebft.distributed import rendezvous
from ebft.distributed.processes import Launch
from ebft.distributed.rendezvous import meet
from ebft.errors import MissingProcessError

SOON = timedelta(seconds=60)


def process(rank, size=3):
    return Launch(rank=rank, local_rank=rank, local_size=size, size=size)


@pytest.fixture
def store():
    return TCPStore("localhost", 0, is_master=True, wait_for_workers=False)


@pytest.mark.parametrize("late", range(3))
def test_each_start_has_a_name_of_its_own(store, late):
    names = []
    for _ in range(3):
        with ThreadPoolExecutor() as pool:
            early = [rank for rank in range(3) if rank != late]
            found = [pool.submit(meet, store, process(rank), SOON) for rank in early]
            time.sleep(0.2)  # they find what an earlier start has left
            found.append(pool.submit(meet, store, process(late), SOON))
        names.append(*{name.result() for name in found})
    assert len(set(names)) == 3


@pytest.mark.parametrize(("rank", "missing"), [(0, 1), (1, 0)])
def test_one_that_does_not_come_is_named(store, rank, missing, monkeypatch):
    monkeypatch.setattr(rendezvous, "LONGER", 0.1)
    with pytest.raises(MissingProcessError, match=f"process {missing} has not come"):
        meet(store, process(rank, size=2), timedelta(seconds=0.2))


def test_those_that_have_come_are_not_missed(store):
    with ThreadPoolExecutor() as pool:
        last = pool.submit(meet, store, process(2), SOON)
        while not store.check(["ebft/here/2"]):
            time.sleep(0.01)
        first = pool.submit(meet, store, process(0), timedelta(seconds=0.5))
        assert "process 1 has not come" in str(first.exception())
        assert last.exception() is None, "the first has answered"


PROCESS = """
import os
import sys
import time
from pathlib import Path

import torch

from ebft.cli.main_process import main_process_output
from ebft.distributed import watchdog
from ebft.distributed.parallel import ParallelOptions, join
from ebft.distributed.processes import Launch

watchdog.EVERY = watchdog.PATIENCE = 0.2
launch, failed = Launch.of_environment(), Path(sys.argv[1])
with main_process_output(launch):
    processes = join(launch, ParallelOptions(timeout=20), torch.device("cpu"))
    assert processes.sum(torch.ones(1)) == 2
    if launch.rank == 1 and not failed.exists():
        failed.touch()
        raise LookupError
    time.sleep(2)  # long enough to be ended, if it were taken for a process that failed
    processes.close()
"""


@pytest.mark.slow
def test_the_machine_that_did_not_fail_is_started_anew_too(environment, tmp_path):
    script = tmp_path / "process.py"
    script.write_text(PROCESS)
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1",
        "--rdzv_backend=c10d", f"--rdzv_endpoint=localhost:{store.port}", "--rdzv_id=one",
        "--rdzv_conf=is_host=0", "--max_restarts=1", "--monitor_interval=0.1",
        str(script), str(tmp_path / "failed"),
    ]  # fmt: skip
    machines = [
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [machine.communicate(timeout=240)[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], "\n".join(said)
    assert (tmp_path / "failed").exists()
