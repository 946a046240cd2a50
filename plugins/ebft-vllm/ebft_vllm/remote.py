"""An engine behind `ebft-vllm serve`, which the processes of a run share."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ebft.errors import EngineError, UserError
from ebft_vllm.channel import ADAPTER_FILES, Address, AuthenticationError, Channel
from ebft_vllm.identity import difference
from ebft_vllm.messages import Job, Sample, Samples
from ebft_vllm.shared import bytes_of, gathered, outline_of

HANDSHAKE = 10.0
"""Seconds that a server may take to answer a new connection; it does so while it starts, too."""
EVERY = 1.0
"""Seconds between tries to connect to a server that is not there yet."""

log = logging.getLogger("ebft.vllm")


class RemoteEngine:
    """A connection to a server, which serves one run at a time.

    The first process of a run opens it, and gets the `run`'s id; the others join it with that id.
    Only the first one sends weights.
    """

    def __init__(
        self,
        address: Address,
        token: bytes,
        identity: Mapping[str, Any],
        *,
        run: str | None,
        start_timeout: float,
        timeout: float,
    ) -> None:
        self._address, self._token, self._timeout = address, token, timeout
        self._sends = run is None
        self.where = f"the vLLM server at {address}"
        until = time.monotonic() + start_timeout
        self._channel, self.hello = self._connect(until)
        if (how := difference(self.hello, identity)) is not None:
            self._channel.close()
            raise UserError(f"sampler.address = {address}: the server {how}")
        left = max(until - time.monotonic(), EVERY)
        self.run: str = self._ask("open", run, timeout=left, option="sampler.start_timeout")

    def load(self, weights: Mapping[str, Tensor]) -> None:
        dtype: torch.dtype = getattr(torch, self.hello["dtype"])
        if self._sends:
            self._send("load", outline_of(weights, dtype))
        problem: OSError | None = None
        for weight in weights.values():
            # In every process, and also after a failure, because the others wait for it.
            whole = gathered(weight)
            if self._sends and problem is None:
                cast = whole.to(dtype) if whole.is_floating_point() else whole
                try:
                    self._channel.send_buffer(bytes_of(cast.cpu().contiguous()))
                except OSError as error:
                    problem = error
        if problem is not None:
            raise self._failure("load", problem) from problem
        if self._sends:
            self._answer("load")

    def load_adapter(self, folder: Path) -> None:
        if not self._sends:
            return
        files = [memoryview((folder / name).read_bytes()) for name in ADAPTER_FILES]
        self._send("load_adapter", [len(file) for file in files])
        try:
            for file in files:
                self._channel.send_buffer(file)
        except OSError as error:
            raise self._failure("load_adapter", error) from error
        self._answer("load_adapter")

    def sample(self, job: Job) -> Samples:
        answer = self._ask("sample", asdict(job))
        return [[Sample(*sample) for sample in group] for group in answer]

    def close(self) -> None:
        self._channel.close()

    def _connect(self, until: float) -> tuple[Channel, dict[str, Any]]:
        """Connects, and waits for a server that is not there yet."""
        waiting = False
        while True:
            try:
                return self._try_to_connect()
            except AuthenticationError as error:
                raise UserError(
                    f"sampler.address = {self._address}: the server has another token, or "
                    "none; set sampler.token_file to the file of `ebft-vllm serve --token-file`"
                ) from error
            except (OSError, EOFError) as error:
                if time.monotonic() > until:
                    raise EngineError(
                        f"{self.where} does not answer: {_reason(error)}; start it "
                        "(`ebft-vllm serve`), or set sampler.address to where it listens"
                    ) from error
            if not waiting:
                log.info("waiting for %s …", self.where)
            waiting = True
            time.sleep(EVERY)

    def _try_to_connect(self) -> tuple[Channel, dict[str, Any]]:
        channel = Channel(socket.create_connection(self._address, timeout=HANDSHAKE))
        try:
            channel.limit(HANDSHAKE)
            channel.authenticate(self._token, asks_first=False)
            return channel, channel.receive()
        except BaseException:
            channel.close()
            raise

    def _ask(
        self,
        name: str,
        argument: Any,
        *,
        timeout: float | None = None,
        option: str = "sampler.timeout",
    ) -> Any:
        self._send(name, argument, timeout)
        return self._answer(name, option)

    def _send(self, name: str, argument: Any, timeout: float | None = None) -> None:
        try:
            self._channel.limit(self._timeout if timeout is None else timeout)
            self._channel.send([name, argument])
        except OSError as error:
            raise self._failure(name, error) from error

    def _answer(self, name: str, option: str = "sampler.timeout") -> Any:
        try:
            kind, answer = self._channel.receive()
        except (OSError, EOFError) as error:
            raise self._failure(name, error, option) from error
        if kind == "refused":
            raise EngineError(f"{self.where} {answer}")
        if kind == "failed":
            raise EngineError(f"{self.where} failed at `{name}`: {answer}")
        return answer

    def _failure(
        self, name: str, error: OSError | EOFError, option: str = "sampler.timeout"
    ) -> EngineError:
        # A late answer would be taken for that of the next request.
        self._channel.close()
        if isinstance(error, BlockingIOError):
            return EngineError(
                f"{self.where} did not answer `{name}` in time; if it was only slow, raise {option}"
            )
        return EngineError(f"{self.where} {self._now()} during `{name}`")

    def _now(self) -> str:
        """Says what has become of the server."""
        with suppress(OSError, EOFError, AuthenticationError):
            channel, hello = self._try_to_connect()
            channel.close()
            if hello["server"] != self.hello["server"]:
                return "was restarted, and has lost the policy's weights,"
            return "closed this run's connection"
        return "ended"


def _reason(error: OSError | EOFError) -> str:
    if isinstance(error, BlockingIOError | TimeoutError):
        return f"nothing within {HANDSHAKE:g} s"
    return getattr(error, "strerror", None) or str(error) or "it closes the connection"
