"""In a run of several processes, one uploads the checkpoints."""

import subprocess
import sys

import pytest

from tests.hub import TOKEN, Hub, serving


@pytest.mark.slow
def test_one_of_two_processes_uploads(tiny_run, environment, tmp_path):
    hub = Hub()
    with serving(hub) as address:
        known = {"HF_ENDPOINT": address, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "",
                 "HF_HUB_DISABLE_XET": "1"}  # fmt: skip
        first, *rest = tiny_run("checkpoint.hub={repo: me/tiny}", "checkpoint.every=null")
        command = [sys.executable, "-m", "ebft.cli.tune", first, "--nproc_per_node", "2", *rest]
        done = subprocess.run(
            command, env=environment | known, capture_output=True, text=True, check=False,
            timeout=300,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert hub.repositories["me/tiny"].commits == ["Step 3"]
    assert hub.requests.count("GET /api/models/me/tiny/auth-check/write") == 1
    assert hub.requests.count("POST /api/repos/create") == 2, "before the run, and by the upload"
    whole = tmp_path / "run" / "checkpoints" / "step-000003" / "model.safetensors"
    assert hub.repositories["me/tiny"].files["model.safetensors"] == whole.read_bytes()
