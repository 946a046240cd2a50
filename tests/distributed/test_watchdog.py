"""The thread that looks out for other processes is gone before Python ends."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from torch.distributed import TCPStore

from ebft.distributed.processes import Launch
from ebft.distributed.rendezvous import meet

PROCESS = """
import os
import sys
import time

from ebft.cli.main_process import main_process_output
from ebft.distributed.processes import Launch
from ebft.distributed import watchdog

watchdog.EVERY = 0  # nearly always inside the store's code
os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": sys.argv[1]}
with main_process_output(Launch(rank=0, local_rank=0, local_size=2, size=2)):
    time.sleep(0.2)
    if sys.argv[2:] == ["wait"]:
        print("waits", flush=True)
        time.sleep(60)
    if len(sys.argv) > 2:
        raise SystemExit(int(sys.argv[2]))
"""


OTHER = Launch(rank=1, local_rank=1, local_size=2, size=2)


def test_a_process_ends_with_its_own_status(environment):
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    pool = ThreadPoolExecutor()
    for given in ([], ["3"]):
        start = pool.submit(meet, store, OTHER, timedelta(seconds=60))
        command = [sys.executable, "-c", PROCESS, str(store.port), *given]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == (int(given[0]) if given else 0), done.stderr
        assert store.check([f"ebft/{start.result()}/place/0"])


def test_a_process_that_loses_the_store_says_so(environment):
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    client = TCPStore("localhost", store.port, is_master=False)
    command = [sys.executable, "-c", PROCESS, str(store.port), "wait"]
    with ThreadPoolExecutor() as pool:
        pool.submit(meet, client, OTHER, timedelta(seconds=60))
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "waits\n"
    port = store.port
    del store
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    says = f"error: process 0: cannot reach torchrun's store at localhost:{port} any more: "
    assert line.startswith(says)
