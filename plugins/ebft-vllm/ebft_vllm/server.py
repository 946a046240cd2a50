"""A server whose engine the processes of a run share, one run after the other.

Each connection has a thread, which receives requests, and one thread makes all calls of the engine.
A request is `[name, argument]`, an answer `["done", result]`, `["failed", reason]` or, to `open`,
`["refused", reason]`.
"""

from __future__ import annotations

import logging
import secrets
import socket
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NoReturn

from pydantic import NonNegativeInt, TypeAdapter

from ebft.errors import first_line
from ebft_vllm.channel import ADAPTER_FILES, Address, AuthenticationError, Channel
from ebft_vllm.local import LocalEngine
from ebft_vllm.messages import Job
from ebft_vllm.shared import Outline, SharedWeights

HANDSHAKE = 10.0
"""Seconds that a new connection may take to prove that it knows the token."""
EVERY = 0.5
"""Seconds between checks that a trainer still waits for its answer."""
PATIENCE = 5.0
"""Seconds that a new run waits for another one to end."""
JOB = TypeAdapter(Job)
SIZES = TypeAdapter(list[NonNegativeInt])
OUTLINE = TypeAdapter(Outline)

log = logging.getLogger("ebft.vllm")


@dataclass(slots=True)
class Call:
    """A call of the engine: of `function`, or to sample a `job`, which may share its batches."""

    function: Callable[[LocalEngine], Any] | None = None
    job: Job | None = None
    result: Future[Any] = field(default_factory=Future)


@dataclass(slots=True)
class Run:
    """The run that is served: its id, where it is, and how many of its processes are connected."""

    id: str
    peer: str
    processes: int = 0


class Server:
    """Accepts connections at once, and answers requests as soon as `work` has an engine.

    `hello` is what it says of itself to a trainer that knows the token.
    """

    def __init__(self, listening: socket.socket, token: bytes, hello: Mapping[str, Any]) -> None:
        self._listening, self._token = listening, token
        self._hello = {**hello, "server": secrets.token_hex(8)}
        self._calls: SimpleQueue[Call] = SimpleQueue()
        self._run: Run | None = None
        self._free = threading.Condition()
        self._weights: SharedWeights | None = None
        threading.Thread(target=self._accept, name="accept", daemon=True).start()

    def work(self, engine: LocalEngine) -> NoReturn:
        """Makes the calls of all connections with the engine, in this thread; never returns.

        Jobs that wait together are sampled together.
        """
        while True:
            for to_sample, calls in groupby(self._waiting(), key=lambda it: it.job is not None):
                if to_sample:
                    _sample(engine, list(calls))
                else:
                    for call in calls:
                        _call(engine, call)

    def _waiting(self) -> list[Call]:
        """Waits for a call; returns those that wait, without those whose trainer is gone."""
        calls = [self._calls.get()]
        while True:
            try:
                calls.append(self._calls.get_nowait())
            except Empty:
                return [call for call in calls if call.result.set_running_or_notify_cancel()]

    def _accept(self) -> None:
        while True:
            connected, address = self._listening.accept()
            peer = str(Address(*address[:2]))
            threading.Thread(target=self._serve, args=(connected, peer), daemon=True).start()

    def _serve(self, connected: socket.socket, peer: str) -> None:
        """Serves one connection until it closes."""
        channel, run = Channel(connected), None
        try:
            channel.limit(HANDSHAKE)
            channel.authenticate(self._token, asks_first=True)
            channel.send(self._hello)
            channel.limit(0)
            run = self._open(channel, peer)
            while run is not None:
                name, argument = channel.receive()
                self._answer(channel, name, argument)
        except AuthenticationError:
            log.warning("refused %s: another token", peer)
        except (OSError, EOFError):
            pass  # the trainer has ended, or was no trainer
        except Exception as error:
            log.warning("closed the connection of %s: %s", peer, first_line(error))
        finally:
            channel.close()
            if run is not None:
                self._leave(run)

    def _open(self, channel: Channel, peer: str) -> Run | None:
        """Takes the connection into its run, or refuses it if another run is served."""
        name, wanted = channel.receive()
        if name != "open":
            raise ValueError(f"the first request is `open`, not `{name}`")
        with self._free:
            if wanted is None:  # another run may be just about to end
                self._free.wait_for(lambda: self._run is None, timeout=PATIENCE)
            begins = wanted is None and self._run is None
            if begins:
                self._run = Run(secrets.token_hex(8), peer)
            run = self._run
            fits = run is not None and (begins or run.id == wanted)
            if run is not None and fits:
                run.processes += 1
        if run is None or not fits:
            how = "has ended this run" if run is None else f"already serves a run of {run.peer}"
            channel.send(["refused", how])
            return None
        if begins:
            log.info("serving a run of %s", peer)
        its_id = run.id
        try:
            self._wait(channel, Call(lambda _engine: its_id))
        except BaseException:
            self._leave(run)
            raise
        return run

    def _leave(self, run: Run) -> None:
        with self._free:
            run.processes -= 1
            if run.processes == 0 and run is self._run:
                self._run = None
                self._free.notify_all()
                log.info("the run of %s has ended", run.peer)

    def _answer(self, channel: Channel, request: str, argument: Any) -> None:
        match request:
            case "sample":
                self._wait(channel, Call(job=JOB.validate_python(argument)))
            case "load":
                weights = self._receive(channel, OUTLINE.validate_python(argument))
                self._wait(
                    channel, Call(lambda engine: engine.load_mapped(weights.path, weights.layout))
                )
            case "load_adapter":
                with tempfile.TemporaryDirectory(prefix="ebft-vllm-") as name:
                    folder = Path(name)
                    sizes = zip(ADAPTER_FILES, SIZES.validate_python(argument), strict=True)
                    for file, size in sizes:
                        content = bytearray(size)
                        channel.receive_buffer(memoryview(content))
                        (folder / file).write_bytes(content)
                    self._wait(channel, Call(lambda engine: engine.load_adapter(folder)))
            case _:
                raise ValueError(f"there is no request `{request}`")

    def _receive(self, channel: Channel, outline: Outline) -> SharedWeights:
        """Receives weights into memory that the engine's workers can map."""
        shared = self._weights
        if shared is None or shared.outline != outline:
            if shared is not None:
                shared.close()
            shared = self._weights = SharedWeights(outline)
        for buffer in shared.buffers():
            channel.receive_buffer(buffer)
        return shared

    def _wait(self, channel: Channel, call: Call) -> None:
        """Sends the result of a call. Raises `EOFError` if the trainer does not wait for it."""
        self._calls.put(call)
        while not wait([call.result], timeout=EVERY).done:
            if channel.is_closed():
                call.result.cancel()
                raise EOFError
        error = call.result.exception()
        if error is None:
            channel.send(["done", call.result.result()])
        else:
            log.warning("the engine failed: %s", first_line(error))
            channel.send(["failed", first_line(error)])


def _call(engine: LocalEngine, call: Call) -> None:
    function = call.function
    assert function is not None, "a call has a function or a job"
    _settle([call], lambda: [function(engine)])


def _sample(engine: LocalEngine, calls: list[Call]) -> None:
    jobs = [call.job for call in calls if call.job is not None]
    _settle(calls, lambda: engine.sample_all(jobs))


def _settle(calls: list[Call], results: Callable[[], list[Any]]) -> None:
    """Gives calls their results; what is raised, to all of them."""
    try:
        for call, result in zip(calls, results(), strict=True):
            call.result.set_result(result)
    except Exception as error:
        for call in calls:
            call.result.set_exception(error)
