"""An engine in a thread of the trainer's process."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ebft.errors import EngineError
from ebft_vllm.local import LocalEngine
from ebft_vllm.messages import Job, Samples, Start

WHERE = "the vLLM engine in the trainer's process"


@dataclass(slots=True)
class _Call:
    function: Callable[[], Any]
    done: threading.Event = field(default_factory=threading.Event)
    result: Any = None
    error: BaseException | None = None


class InProcessEngine:
    """Runs a `LocalEngine` on its own thread, so that a call can be abandoned after a timeout.

    Python cannot end the thread of a call that hangs, but it is a daemon, so the process can still
    exit. One thread makes all calls because vLLM configures the thread that it starts on.
    """

    def __init__(self, start: Start, *, start_timeout: float, timeout: float) -> None:
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._timeout = timeout
        threading.Thread(target=self._serve, name="vllm", daemon=True).start()
        self._engine: LocalEngine = self._ask("start", lambda: LocalEngine(start), start_timeout)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        self._ask("load weights", lambda: self._engine.load(weights.items()), self._timeout)

    def load_adapter(self, folder: Path) -> None:
        self._ask("load an adapter", lambda: self._engine.load_adapter(folder), self._timeout)

    def sample(self, job: Job) -> Samples:
        samples: Samples = self._ask("sample", lambda: self._engine.sample(job), self._timeout)
        return samples

    def close(self) -> None:
        self._calls.put(None)

    def _ask(self, what: str, function: Callable[[], Any], timeout: float) -> Any:
        call = _Call(function)
        self._calls.put(call)
        if not call.done.wait(timeout):
            raise EngineError(f"{WHERE} did not {what} within {timeout:g} s")
        if call.error is not None:
            raise EngineError(f"{WHERE} failed to {what}: {call.error!r}") from call.error
        return call.result

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call.result = call.function()
            except BaseException as error:  # raised in the thread of the caller
                call.error = error
            call.done.set()
