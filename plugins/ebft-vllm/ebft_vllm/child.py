"""The engine's own process: `python -m ebft_vllm.child FD PID` serves one connection until it
closes, or until the trainer (process PID) has ended.

A request is `(name, arguments)`, an answer `("done", result)` or `("failed", reason, traceback)`.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

from ebft_vllm.local import LocalEngine

EVERY = 1.0
"""Seconds between checks that the trainer is running."""


class Server:
    """Answers the trainer's requests, one after the other."""

    def __init__(self) -> None:
        self._engine: LocalEngine | None = None

    def answer(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """Returns the result of a request; raises what vLLM raises."""
        if name == "start":
            self._engine = LocalEngine(*arguments)
            return None
        assert self._engine is not None, "the first request is `start`"
        match name:
            case "sample":
                return self._engine.sample(*arguments)
            case "load":
                return self._engine.load_mapped(*arguments)
            case "load_adapter":
                return self._engine.load_adapter(*arguments)
        raise AssertionError(name)


def serve(connection: Connection) -> None:
    """Answers requests until the trainer closes the connection or ends."""
    server = Server()
    while True:
        try:
            name, arguments = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        answer: tuple[Any, ...]
        try:
            answer = ("done", server.answer(name, arguments))
        except BaseException as error:
            answer = ("failed", repr(error), traceback.format_exc())
        try:
            connection.send(answer)
        except (BrokenPipeError, ConnectionResetError):
            return


def end_with(trainer: int) -> None:
    """Ends this process when the trainer has ended, even during a call that hangs."""
    while os.getppid() == trainer:
        time.sleep(EVERY)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with, args=(int(sys.argv[2]),), daemon=True).start()
    serve(Connection(int(sys.argv[1])))
    # A normal exit would join vLLM's threads, and one that hangs would keep the process alive.
    os._exit(0)
