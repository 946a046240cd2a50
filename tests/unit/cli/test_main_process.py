"""Which errors are those of a process that waits for others."""

import pytest
from torch.distributed import DistBackendError, DistStoreError

from ebft.cli.main_process import is_timeout

GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 9ms"


class RewardError(RuntimeError):
    pass


@pytest.mark.parametrize(
    ("error", "waits"),
    [
        (RuntimeError(GLOO), True),
        (DistBackendError("NCCL: watchdog: collective timed out"), True),
        (DistStoreError("wait timeout: timed out after 60000ms"), True),
        (RuntimeError("POST https://judge.example/score: the read operation timed out"), False),
        (RewardError("/gloo/ timed out"), False),
        (TimeoutError("timed out"), False),
        (RuntimeError(GLOO.replace("Timed out", "Connection closed")), False),
    ],
)
def test_a_timeout_is_a_collective_s_only(error, waits):
    assert is_timeout(error) is waits
