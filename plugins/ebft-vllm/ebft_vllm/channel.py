"""An authenticated TCP connection between a trainer and a server: JSON and bytes, never pickle.

Both ends prove that they know the same token, by the challenges of `multiprocessing.connection`;
the token itself is not sent. What is sent afterwards is neither encrypted nor signed.
"""

from __future__ import annotations

import json
import socket
import struct
from multiprocessing import AuthenticationError, BufferTooShort
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path
from typing import Any, NamedTuple, Self

from ebft.errors import UserError

PIECE = 2**26
"""Bytes of weights in one message."""
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
"""The files of an adapter that peft has saved, in the order in which they are sent."""
SHORTEST = 16
"""Characters of a token."""
KEEP_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
"""Seconds, seconds, tries: a peer whose machine is lost is found after two minutes."""
OTHER = "the other end speaks another protocol"
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `host:port`, or `[host]:port` with an IPv6 address. Raises `ValueError`."""
        host, _, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            host = ""
        if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ValueError(f"{text}: not an address; give host:port, such as 127.0.0.1:29550")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_token(file: Path | None, *, says: str) -> bytes:
    """Returns the token in a file, without white space around it; without a file it is empty.

    `says` names the option. Raises `UserError` for a file that cannot be read, or a short token.
    """
    if file is None:
        return b""
    try:
        token = file.read_bytes().strip()
    except OSError as error:
        raise UserError(f"{says} = {file}: cannot be read: {error.strerror}") from error
    if len(token) < SHORTEST:
        raise UserError(
            f"{says} = {file}: a token has {SHORTEST} characters or more, and this has "
            f"{len(token)}; make one: openssl rand -hex 32 > {file}"
        )
    return token


class Channel:
    """One end of a connection. Its methods raise `OSError` or `EOFError` if the other end is gone,
    and `BlockingIOError`, which is an `OSError`, if it does nothing for as long as `limit` allows.
    """

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(True)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEP_ALIVE.items():
            if (option := getattr(socket, name, None)) is not None:  # not on every system
                connected.setsockopt(socket.IPPROTO_TCP, option, value)
        self._connection = Connection(connected.detach())

    def limit(self, seconds: float) -> None:
        """Sets how long a read or a write may wait for the other end; 0: for ever."""
        interval = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
        with socket.socket(fileno=socket.dup(self._connection.fileno())) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, interval)
            same.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)

    def authenticate(self, token: bytes, *, asks_first: bool) -> None:
        """Proves to the other end that this one knows the token, and has that prove the same.

        One of the two ends asks first. Raises `AuthenticationError` for another token.
        """
        steps = (deliver_challenge, answer_challenge)
        for step in steps if asks_first else reversed(steps):
            try:
                step(self._connection, token)
            except (AssertionError, ValueError) as error:  # no challenge, or another digest
                raise OSError(OTHER) from error

    def send(self, message: Any) -> None:
        """Sends a message of plain data."""
        self._connection.send_bytes(json.dumps(message).encode())

    def receive(self, largest: int | None = None) -> Any:
        """Returns the next message. Raises `OSError` for one of more than `largest` bytes, and for
        one that is not JSON."""
        try:
            return json.loads(self._connection.recv_bytes(largest))
        except ValueError as error:
            raise OSError(OTHER) from error

    def send_buffer(self, buffer: memoryview) -> None:
        """Sends bytes, in pieces."""
        for start in range(0, len(buffer), PIECE):
            self._connection.send_bytes(buffer[start : start + PIECE])

    def receive_buffer(self, buffer: memoryview) -> None:
        """Fills a buffer with what `send_buffer` sent."""
        filled = 0
        while filled < len(buffer):
            try:
                filled += self._connection.recv_bytes_into(buffer, filled)
            except BufferTooShort as error:
                raise OSError(OTHER) from error

    def is_closed(self) -> bool:
        """Whether the other end is gone, if it has nothing to say now."""
        return self._connection.poll()

    def close(self) -> None:
        """Closes this end."""
        self._connection.close()


__all__ = ["LOOPBACK", "Address", "AuthenticationError", "Channel", "read_token"]
