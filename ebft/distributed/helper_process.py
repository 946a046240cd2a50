"""A child process that answers requests: an engine that may die, or needs other packages."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from ebft.errors import EngineError

log = logging.getLogger("ebft")


class HelperProcess:
    """Starts `command` and sends it requests; ends it when it does not answer in time.

    The command gets two more arguments: the file descriptor of its connection, and this process's
    id, with which it has to end. A request is `(name, arguments)`, an answer `("done", result)` or
    `("failed", reason, traceback)`; both are pickled. `what` names the process in messages.
    """

    def __init__(
        self, command: Sequence[str], *, what: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self._what = what
        self._process, self._connection = _spawn(command, environment or {})
        self._end = weakref.finalize(self, _end, self._process, self._connection)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ask(self, name: str, *arguments: Any, timeout: float, option: str) -> Any:
        """Returns the answer to a request.

        Raises `EngineError` if the process has ended, does not answer within `timeout` seconds,
        which is the value of `option`, or reports a failure. After a timeout it is ended.
        """
        message = (name, arguments)
        try:
            # Sent in a thread, so that the timeout applies too if the process does not read.
            threading.Thread(target=_send, args=(self._connection, message), daemon=True).start()
            if not self._connection.poll(timeout):
                self._end()
                raise EngineError(
                    f"{self._what} did not answer `{name}` within {timeout:g} s and was ended; if "
                    f"it was only slow, raise {option}"
                )
            kind, *answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise EngineError(f"{self._what} {self._last_words()} during `{name}`") from error
        if kind == "failed":
            reason, trace = answer
            log.debug("%s", trace)
            raise EngineError(f"{self._what} failed at `{name}`: {reason}")
        return answer[0]

    def close(self) -> None:
        """Ends the process; a running request is lost."""
        self._end()

    def _last_words(self) -> str:
        try:
            status = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        return f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"


def _spawn(
    command: Sequence[str], environment: Mapping[str, str]
) -> tuple[subprocess.Popen[bytes], Connection]:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [*command, str(theirs.fileno()), str(os.getpid())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=sys.__stderr__.fileno() if sys.__stderr__ else subprocess.DEVNULL,
            # Otherwise a file datasets.py in the user's working directory would be imported.
            env={**os.environ, "PYTHONSAFEPATH": "1", **environment},
            # On Ctrl-C the trainer finishes the step, and its helper must not end before that.
            start_new_session=True,
        )
    return process, Connection(ours.detach())


def _send(connection: Connection, message: tuple[str, tuple[Any, ...]]) -> None:
    # The process has ended, which the wait for the answer reports; or `close` was called meanwhile,
    # and a closed connection has None for its handle.
    with suppress(OSError, TypeError):
        connection.send(message)


def _end(process: subprocess.Popen[bytes], connection: Connection) -> None:
    process.kill()
    process.wait()
    connection.close()
