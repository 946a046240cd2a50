"""An engine in its own process on the trainer's machine."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from ebft.errors import EngineError
from ebft_vllm.messages import Job, Samples, Start
from ebft_vllm.shared import SharedWeights

log = logging.getLogger("ebft.vllm")

WHERE = "the vLLM engine's process"


class OwnProcessEngine:
    """Starts `ebft_vllm.server` and sends it requests; ends it when it does not answer in time.

    The server's process ends by itself when this process has ended for any reason.
    """

    def __init__(
        self, start: Start, *, devices: str | None, start_timeout: float, timeout: float
    ) -> None:
        self._timeout = timeout
        self._dtype = getattr(torch, start.dtype)
        self._shared: SharedWeights | None = None
        self._process, self._connection = _spawn(devices)
        self._end = weakref.finalize(self, _end, self._process, self._connection)
        self._ask("start", start, timeout=start_timeout)

    @property
    def pid(self) -> int:
        """The process id of the engine."""
        return self._process.pid

    def load(self, weights: dict[str, Tensor]) -> None:
        if self._shared is None:
            self._shared = SharedWeights(weights, self._dtype)
        self._shared.write(weights)
        self._ask("load", self._shared.path, self._shared.layout, timeout=self._timeout)

    def sample(self, job: Job) -> Samples:
        samples: Samples = self._ask("sample", job, timeout=self._timeout)
        return samples

    def close(self) -> None:
        self._end()
        if self._shared is not None:
            self._shared.close()
            self._shared = None

    def _ask(self, name: str, *arguments: Any, timeout: float) -> Any:
        message = (name, arguments)
        try:
            # Sent in a thread, so that the timeout applies too if the process does not read.
            threading.Thread(target=_send, args=(self._connection, message), daemon=True).start()
            if not self._connection.poll(timeout):
                self._end()
                option = "start_timeout" if name == "start" else "timeout"
                raise EngineError(
                    f"{WHERE} did not answer `{name}` within {timeout:g} s and was ended; if it "
                    f"was only slow, raise sampler.{option}"
                )
            kind, *answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise EngineError(f"{WHERE} {self._last_words()} during `{name}`") from error
        if kind == "failed":
            reason, trace = answer
            log.debug("%s", trace)
            raise EngineError(f"{WHERE} failed at `{name}`: {reason}")
        return answer[0]

    def _last_words(self) -> str:
        try:
            status = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        return f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"


def _spawn(devices: str | None) -> tuple[subprocess.Popen[bytes], Connection]:
    ours, theirs = socket.socketpair()
    # Otherwise a file datasets.py in the user's working directory would be imported.
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    if devices is not None:
        environment["CUDA_VISIBLE_DEVICES"] = devices
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "ebft_vllm.server", str(theirs.fileno()), str(os.getpid())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=sys.__stderr__.fileno() if sys.__stderr__ else subprocess.DEVNULL,
            env=environment,
            # On Ctrl-C the trainer finishes the step, and the engine must not end before that.
            start_new_session=True,
        )
    return process, Connection(ours.detach())


def _send(connection: Connection, message: tuple[str, tuple[Any, ...]]) -> None:
    with suppress(OSError):  # the process has ended, which the wait for the answer reports
        connection.send(message)


def _end(process: subprocess.Popen[bytes], connection: Connection) -> None:
    process.kill()
    process.wait()
    connection.close()
