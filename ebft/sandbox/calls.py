"""Calls between a program and its check, which run in two processes.

Each process has a `Peer`. The program's peer answers calls of the program's definitions. The
check's peer makes calls and, while it waits, answers calls of functions and objects that it passed
as arguments. A `Remote` is a proxy of an object of the other process. The program decides nothing:
a `Remote` never equals a value of the check, and the program does not see the expected values.

The text of this file, after that of `values.py`, runs before the program and before the check.
"""

from __future__ import annotations

import io
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ebft.sandbox.values import MISSING, Codec

LENGTH = 8
"""Bytes of a message's length."""
CHANGEABLE = (list, dict, set, bytearray)

UNARY: dict[str, Callable[..., Any]] = {
    "len": len, "iter": iter, "next": next, "str": str, "repr": repr, "bool": bool, "hash": hash,
    "int": int, "float": float, "abs": abs, "neg": lambda x: -x, "index": lambda x: x.__index__(),
    "enter": lambda x: type(x).__enter__(x), "getitem": lambda x, key: x[key],
    "setitem": lambda x, key, value: x.__setitem__(key, value),
    "delitem": lambda x, key: x.__delitem__(key),
    "await": lambda x: __import__("asyncio").run(x),
    "exit": lambda x, kind, error: type(x).__exit__(x, kind, error, None),
    "round": round, "reversed": reversed, "format": format,
}  # fmt: skip
"""Special methods that are forwarded to the object with any arguments."""
BINARY: dict[str, Callable[..., Any]] = {
    "add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul": lambda x, y: x * y,
    "truediv": lambda x, y: x / y, "floordiv": lambda x, y: x // y, "mod": lambda x, y: x % y,
    "pow": lambda x, y: x**y, "matmul": lambda x, y: x @ y, "and": lambda x, y: x & y,
    "or": lambda x, y: x | y, "xor": lambda x, y: x ^ y, "lt": lambda x, y: x < y,
    "le": lambda x, y: x <= y, "gt": lambda x, y: x > y, "ge": lambda x, y: x >= y,
    "eq": lambda x, y: x == y, "instancecheck": lambda x, y: isinstance(y, x),
}  # fmt: skip
"""Special methods that are forwarded only for two objects of the same process; else the plain
values are used."""


class ProgramEnded(BaseException):
    """The other process has ended. It is not an `Exception`, so that a check cannot expect it."""


class UnusableCheck(BaseException):
    """A check that cannot run with any program."""


class Remote:
    """A proxy of an object of the other process, with its plain value if its class derives from a
    plain class."""

    def __init__(self, peer: Peer, plain: Any) -> None:
        object.__setattr__(self, "_ebft_peer", peer)
        object.__setattr__(self, "_ebft_plain", plain)

    def __getattr__(self, name: str) -> Any:
        return self._ebft_peer.ask("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._ebft_peer.ask("setattr", self, name, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._ebft_peer.ask("call", self, *args, **kwargs)

    def __exit__(self, kind: Any, error: Any, _traceback: Any) -> None:
        # Whatever it answers: an assertion of the check is not the program's to pass over.
        self._ebft_peer.ask("exit", self, kind, error)

    def __eq__(self, other: object) -> Any:
        return self is other or _both("eq", self, other)

    def __hash__(self) -> int:
        plain = self._ebft_plain
        return int(self._ebft_peer.ask("hash", self)) if plain is MISSING else hash(plain)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        raise UnusableCheck("it derives a class from one of the program's")


def _both(name: str, one: Remote, other: Any) -> Any:
    if type(other) is Remote:
        return one._ebft_peer.ask(name, one, other)
    if one._ebft_plain is MISSING or name == "instancecheck":
        return name not in ("eq", "instancecheck") and NotImplemented
    return BINARY[name](one._ebft_plain, other)


def _add_special_methods() -> None:
    def unary(name: str) -> Any:
        return lambda self, *more: self._ebft_peer.ask(name, self, *more)

    def binary(name: str) -> Any:
        return lambda self, other: _both(name, self, other)

    for name in UNARY.keys() - {"hash", "await", "exit"}:
        setattr(Remote, f"__{name}__", unary(name))
    for name in BINARY.keys() - {"eq"}:
        setattr(Remote, f"__{name}__", binary(name))


_add_special_methods()


class Peer:
    """One end of the channel between a program and its check.

    `names` are the program's definitions. It is None in the check's process, which answers only for
    objects that it passed as arguments, and not for attributes that lead to the check itself.
    """

    def __init__(self, channel: int, names: dict[str, Any] | None) -> None:
        self._channel, self._names = channel, names
        self._codec = Codec(lambda plain: Remote(self, plain))

    def ask(self, what: str, *args: Any, **kwargs: Any) -> Any:
        """Returns the other process's answer, and applies its changes to arguments in place.

        Raises the error that the other process has raised, or `ProgramEnded` if it has ended.
        """
        self._send("ask", what, args, kwargs)
        while True:
            kind, *message = self._receive()
            if kind == "ask":
                self._answer(*message)
            elif kind == "done":
                result, changed, printed, is_awaited = message
                given = [*args, *kwargs.values()]
                for place, value in changed.items():
                    _change(given[place], value)
                if printed:
                    sys.stdout.write(printed)
                return _later(self, result) if is_awaited else result
            else:
                (error,) = message
                if isinstance(error, StopIteration) and what != "next":
                    # As in a generator: `map` and `filter` would take it for the end.
                    error = RuntimeError("StopIteration")
                error.from_program = True
                raise error

    def serve(self) -> None:
        """Answers until the other process has ended."""
        while True:
            try:
                _, *message = self._receive()
            except ProgramEnded:
                return
            self._answer(*message)

    def _answer(self, what: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = [*args, *kwargs.values()]
        try:
            before = {
                place: self._codec.dumps(value)
                for place, value in enumerate(given)
                if type(value) in CHANGEABLE
            }
            result = self._do(what, args, kwargs)
            changed = {
                place: given[place]
                for place, content in before.items()
                if self._codec.dumps(given[place]) != content
            }
            awaited = type(result).__name__ == "coroutine"
            answer = self._codec.dumps(("done", result, changed, self._printed(), awaited))
        except BaseException as error:
            try:
                answer = self._codec.dumps(("failed", error))
            except Exception:  # its arguments contain themselves
                answer = self._codec.dumps(("failed", RuntimeError(type(error).__name__)))
        self._write(answer)

    def _do(self, what: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if what == "name" and self._names is not None:
            return self._names.get(args[0], MISSING)
        target, *more = args
        if self._names is None and not self._codec.is_own(target):
            raise TypeError("the check answers for what it gave as an argument only")
        if what == "call":
            return target(*more, **kwargs)
        if what in ("getattr", "setattr"):
            if self._names is None and not _is_open(target, more[0]):
                raise AttributeError(more[0])
            return getattr(target, *more) if what == "getattr" else setattr(target, *more)
        return (UNARY | BINARY)[what](*args)

    def _printed(self) -> str:
        """Returns the program's output to `sys.stdout` since the last call."""
        written = getattr(sys.stdout, "buffer", None)
        if self._names is None or not isinstance(written, io.BytesIO):
            return ""
        text = written.getvalue().decode("utf-8", "replace")
        written.seek(0)
        written.truncate()
        return text

    def _send(self, *message: Any) -> None:
        self._write(self._codec.dumps(message))

    def _write(self, content: bytes) -> None:
        rest = memoryview(len(content).to_bytes(LENGTH, "big") + content)
        while rest:
            try:
                rest = rest[os.write(self._channel, rest) :]
            except BrokenPipeError:
                raise ProgramEnded from None

    def _receive(self) -> Any:
        length = int.from_bytes(self._read(LENGTH), "big")
        return self._codec.loads(self._read(length))

    def _read(self, length: int) -> bytes:
        content = bytearray()
        while len(content) < length:
            try:
                part = os.read(self._channel, min(length - len(content), 2**20))
            except ConnectionResetError:
                raise ProgramEnded from None
            if not part:
                raise ProgramEnded
            content += part
        return bytes(content)


async def _later(peer: Peer, coroutine: Remote) -> Any:
    return peer.ask("await", coroutine)


def _is_open(target: Any, name: str) -> bool:
    """Whether the program may read this attribute of an object that the check passed to it."""
    return type(target).__module__ == "__main__" and not name.startswith("_")


def _change(given: Any, value: Any) -> None:
    if type(given) is not type(value) or type(given) not in CHANGEABLE:
        raise TypeError("what came back is not what was given")
    if isinstance(given, list | bytearray):
        given[:] = value
    else:
        given.clear()
        given.update(value)
