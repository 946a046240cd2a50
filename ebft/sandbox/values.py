"""How values are sent between a program and its check, which run in two processes.

Plain values are encoded with their type. Other objects are sent as a number, by which the receiver
can call their owner. Any received bytes decode to a plain value, a `Remote` or an error.

The text of this file runs before the program and before the check; it imports very little.
"""

from __future__ import annotations

import builtins
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MISSING = type("Missing", (), {})()
CONSTANTS = (None, False, True, Ellipsis, NotImplemented, MISSING)
SERIES: tuple[type, ...] = (list, tuple, set, frozenset)
PLAIN = (*SERIES, dict, str, bytes, bytearray, int, float, complex)
STANDARD = {
    "decimal.Decimal", "fractions.Fraction", "datetime.date", "datetime.datetime", "datetime.time",
    "datetime.timedelta", "datetime.timezone", "collections.Counter", "collections.deque",
    "pathlib.PosixPath",
}  # fmt: skip
AS_DICT = ("collections.OrderedDict", "collections.defaultdict")


class Codec:
    """Encodes and decodes values, for one of the two processes.

    `remote` makes the proxy of an object of the other process, from its plain value if its class
    derives from a plain class, else from `MISSING`.
    """

    def __init__(self, remote: Callable[[Any], Any]) -> None:
        self._remote = remote
        self._own: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._remotes: dict[int, Any] = {}
        self._theirs: dict[int, int] = {}
        self._errors: dict[str, type[BaseException]] = {}

    def own(self, number: int) -> Any:
        """Returns the object that was sent to the other process as this number."""
        if not 0 <= number < len(self._own):
            raise ValueError("no such object")
        return self._own[number]

    def is_own(self, value: Any) -> bool:
        """Whether this object was sent to the other process."""
        number = self._numbers.get(id(value))
        return number is not None and self._own[number] is value

    def _error(
        self, names: list[str], arguments: tuple[Any, ...], attributes: dict[str, Any]
    ) -> BaseException:
        kind = self._error_class(names)
        try:
            error = kind(*arguments)
        except Exception:  # a class of the program with other arguments
            return RuntimeError(kind.__name__)
        for name, value in attributes.items():
            if not name.startswith("_"):
                setattr(error, name, value)
        return error

    def _error_class(self, names: list[str]) -> type[BaseException]:
        """Returns the error class of these names, the last of which is a builtin's or the standard
        library's; a new class for a class of the program.

        Classes that would end a process or a test are replaced by RuntimeError.
        """
        *own, last = names
        module, _, name = last.rpartition(".")
        found: Any = getattr(imported(module) if module else builtins, name, RuntimeError)
        if not (isinstance(found, type) and issubclass(found, Exception)) or is_unittests(found):
            found = RuntimeError
        kind: type[BaseException] = found
        for name in reversed(own):
            kind = self._errors.setdefault(name, type(name, (kind,), {}))
        return kind

    def dumps(self, value: Any) -> bytes:
        """Encodes a value. Raises `RecursionError` for deeply nested or recursive values."""
        out = bytearray()
        self._write(value, out)
        return bytes(out)

    def _write(self, value: Any, out: bytearray) -> None:
        kind: Any = type(value)
        if kind is int:
            _text(b"i", b"%x" % value, out)
        elif kind is float:
            _text(b"f", value.hex().encode(), out)
        elif kind is str:
            _text(b"s", value.encode("utf-8", "surrogatepass"), out)
        elif kind is bytes or kind is bytearray:
            _text(b"b" if kind is bytes else b"a", value, out)
        elif kind in SERIES:
            self._series(b"%d" % SERIES.index(kind), value, out)
        elif kind is dict:
            self._series(b"d", [part for item in value.items() for part in item], out)
        elif any(value is constant for constant in CONSTANTS):
            out += b"c%d:" % next(i for i, constant in enumerate(CONSTANTS) if value is constant)
        elif kind is complex:
            self._series(b"z", (value.real, value.imag), out)
        elif kind is range or kind is slice:
            parts = (value.start, value.stop, value.step)
            self._series(b"r" if kind is range else b"l", parts, out)
        elif isinstance(value, type) and is_builtin(value):
            _text(b"t", value.__name__.encode(), out)
        elif isinstance(value, type) and issubclass(value, BaseException):
            self._series(b"e", self._names_of(value), out)
        elif isinstance(value, BaseException):
            # Not `args`, which lack an OSError's file; its attributes come last, if it has any.
            made: Any = value.__reduce__()
            attributes = made[2] if len(made) > 2 else {}
            self._series(b"E", (self._names_of(kind), made[1], attributes), out)
        elif kind is type(sys):
            _text(b"m", value.__name__.encode(), out)
        elif (name := f"{kind.__module__}.{kind.__qualname__}") in AS_DICT:
            self._write(dict(value), out)
        elif name in STANDARD:
            deque = name == "collections.deque"
            arguments = (list(value), value.maxlen) if deque else value.__reduce__()[1]
            self._series(b"x", (name, *arguments), out)
        else:
            self._write_object(value, out)

    def _names_of(self, kind: type[BaseException]) -> list[str]:
        """What the other process knows the class by, which may come back as this very class."""
        for one in kind.__mro__:
            if is_known(one) or not issubclass(one, Exception):
                break
            self._errors.setdefault(one.__name__, one)
        return error_names(kind)

    def _write_object(self, value: Any, out: bytearray) -> None:
        if (number := self._theirs.get(id(value), -1)) >= 0:
            out += b"y%d:" % number
            return
        number = self._numbers.setdefault(id(value), len(self._own))
        if number == len(self._own):
            self._own.append(value)
        out += b"o%d:" % number
        base = next((one for one in PLAIN if isinstance(value, one)), None)
        self._write(MISSING if base is None else base(value), out)

    def _series(self, tag: bytes, values: Any, out: bytearray) -> None:
        out += tag + b"%d:" % len(values)
        for value in values:
            self._write(value, out)

    def loads(self, data: bytes) -> Any:
        """Decodes a value. Raises `ValueError`, or a constructor's error, for other bytes."""
        value, end = self._read(data, 0)
        if end != len(data):
            raise ValueError("more than a value")
        return value

    def _read(self, data: bytes, at: int) -> tuple[Any, int]:
        colon = data.index(b":", at)
        tag, count, at = data[at : at + 1], int(data[at + 1 : colon]), colon + 1
        if count < 0:
            raise ValueError("a negative length")
        if tag == b"c":
            return CONSTANTS[count], at
        if tag in b"ifsbatm":
            return _atom(tag, data[at : at + count]), at + count
        if tag == b"y":
            return self.own(count), at
        if tag == b"o":
            plain, at = self._read(data, at)
            return self._remote_of(count, plain), at
        values: list[Any] = []
        for _ in range(count):
            value, at = self._read(data, at)
            values.append(value)
        return self._build(tag, values), at

    def _remote_of(self, number: int, plain: Any) -> Any:
        if number not in self._remotes:
            self._remotes[number] = self._remote(plain)
            self._theirs[id(self._remotes[number])] = number
        return self._remotes[number]

    def _build(self, tag: bytes, values: list[Any]) -> Any:
        if tag.isdigit():
            return SERIES[int(tag)](values)
        if tag == b"d":
            return dict(zip(values[::2], values[1::2], strict=True))
        if tag == b"e":
            return self._error_class(values)
        if tag == b"E":
            return self._error(*values)
        if tag == b"x" and values[0] in STANDARD:
            module, _, name = values[0].partition(".")
            return getattr(__import__(module), name)(*values[1:])
        return {b"z": complex, b"r": range, b"l": slice}[tag](*values)


def is_builtin(kind: type) -> bool:
    """Whether `kind` is the builtin class of its name."""
    return getattr(builtins, kind.__name__, None) is kind


def is_known(kind: type) -> bool:
    """Whether it is the class of its name of Python or of its standard library."""
    module = sys.modules.get(kind.__module__)
    is_there = getattr(module, kind.__name__, None) is kind
    return is_builtin(kind) or (is_there and is_standard(kind.__module__))


def is_standard(module: str) -> bool:
    """Whether this is the name of a module of the standard library."""
    return module.partition(".")[0] in sys.stdlib_module_names


def is_unittests(kind: type) -> bool:
    """Whether it is an error by which unittest passes over a test."""
    return kind.__module__.partition(".")[0] == "unittest"


def imported(module: str) -> Any:
    """A module of the standard library. Raises `ValueError` for others, and for one that is a
    program, whose end would be taken for the check's."""
    if not is_standard(module):
        raise ValueError("no module of the standard library")
    try:
        return __import__(module, fromlist=["name"])
    except (ImportError, SystemExit):
        raise ValueError("no module that can be imported") from None


def error_names(kind: type[BaseException]) -> list[str]:
    """Returns the names of an error class and its bases, up to the first that both processes
    have."""
    names = []
    for one in kind.__mro__:
        names.append(one.__name__ if is_builtin(one) else f"{one.__module__}.{one.__name__}")
        if is_known(one):
            break
        names[-1] = one.__name__
    return names


def _text(tag: bytes, content: bytes, out: bytearray) -> None:
    out += tag + b"%d:" % len(content) + content


def _atom(tag: bytes, content: bytes) -> Any:
    if tag == b"i":
        return int(content, 16)
    if tag == b"f":
        return float.fromhex(content.decode())
    if tag == b"s":
        return content.decode("utf-8", "surrogatepass")
    if tag == b"t":
        found = getattr(builtins, content.decode())
        if not isinstance(found, type):
            raise ValueError("no type")
        return found
    if tag == b"m":
        return imported(content.decode())
    return content if tag == b"b" else bytearray(content)
