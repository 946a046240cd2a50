import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.distributed.worker import record

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def environment():
    """Of a command that starts processes of its own: one thread each, and this ebft."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}


@pytest.fixture
def steps_of(tiny_run, tmp_path, environment):
    """The steps of a run in so many processes: what all of them did, and the weights after."""

    def run(name, *overrides, processes=1, recipe="ebft_full"):
        folder = tmp_path / name
        folder.mkdir()
        _, *arguments = tiny_run(*overrides, "overwrite=true", recipe=recipe)
        if processes == 1:
            record(folder, *arguments)
        else:
            torchrun = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
            script = [str(REPOSITORY / "tests/distributed/worker.py"), str(folder)]
            command = [sys.executable, *torchrun, *script, *arguments]
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False, timeout=300
            )
            assert done.returncode == 0, done.stderr
        ranks = [json.loads(f.read_text()) for f in sorted(folder.glob("rank-*.json"))]
        assert len(ranks) == processes
        return list(zip(*ranks, strict=True)), load_file(folder / "weights")

    return run
