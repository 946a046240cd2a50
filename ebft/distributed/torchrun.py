"""Starts the processes of a command with torchrun, in this process."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence

from ebft.console import say


def torchrun(options: Sequence[str], command: Sequence[str]) -> int:
    """Runs `ebft COMMAND` in the processes that torchrun starts, and returns the exit status."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as run

    # After Ctrl-C or SIGTERM, the processes need time to finish the step and save a checkpoint.
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "600")
    # The process that fails reports its own error; torchrun's reports would bury it.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    # Otherwise a user's file datasets.py in the working directory would be imported instead of the
    # library.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    try:
        run([*options, "-m", "ebft.cli.main", *command])
    except SignalException as stop:
        return 128 + stop.sigval
    except ChildFailedError as error:
        for rank, failure in error.failures.items():
            # A process that a signal killed reported nothing; SIGTERM comes from torchrun itself.
            if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM:
                say(f"process {rank}: {failure.message}", file=sys.stderr)
        codes = [failure.exitcode for failure in error.failures.values()]
        return max(codes) if max(codes) > 0 else 1
    return 0
