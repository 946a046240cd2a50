"""Starts in a process of its own: puts the limits on, then runs the program it was given.

Not imported by ebft: `python child.py CHANNEL` with settings and program on standard input. It
imports next to nothing, for its start is most of what a short program costs.

The word that means "it ran to its end" waits in the channel until then: a program that leaves
early, however it does, has not said it. Program and harness share an interpreter, so one that was
written to defeat this very file could; nothing that it does gets out of the sandbox.
"""

from __future__ import annotations

import ctypes
import marshal
import os
import resource
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` takes longer to import than all that is above
    from typing import Any

SHOWN = 300
NO_NEW_PRIVILEGES, SECCOMP, DEATH_SIGNAL, FILTER, SIGKILL = 38, 22, 1, 2, 9
ADD_RULE, RESTRICT_SELF, CREATE_RULESET = 445, 446, 444
CAPABILITIES = {"x86_64": 126, "aarch64": 91}
CAPABILITY_VERSION = 0x20080522
BENEATH = 1


class Program(ctypes.Structure):
    """The kernel's `struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


class Beneath(ctypes.Structure):
    """The kernel's `struct landlock_path_beneath_attr`."""

    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def limit(name: str, most: int) -> None:
    """Sets a limit for good. Raises `OSError` naming it if the system refuses it."""
    try:
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))
    except (OSError, OverflowError, ValueError) as error:
        raise OSError(f"RLIMIT_{name} = {most}: {error}") from error


def isolate(settings: dict[str, Any]) -> None:
    """Landlock, then seccomp, for good. Raises `OSError` if the kernel refuses any of it."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(function: Any, *arguments: Any) -> int:
        result: int = function(*arguments)
        if result < 0:
            raise OSError(ctypes.get_errno(), f"{os.strerror(ctypes.get_errno())} {arguments[:2]}")
        return result

    call(libc.prctl, DEATH_SIGNAL, SIGKILL, 0, 0, 0)
    call(libc.prctl, NO_NEW_PRIVILEGES, 1, 0, 0, 0)

    handled = ctypes.c_uint64(settings["handled"])
    ruleset = call(libc.syscall, CREATE_RULESET, ctypes.byref(handled), 8, 0)
    for path, allowed in settings["rules"]:
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = Beneath(allowed, folder)
        call(libc.syscall, ADD_RULE, ruleset, BENEATH, ctypes.byref(rule), 0)
        os.close(folder)
    call(libc.syscall, RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)

    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    none = (ctypes.c_uint32 * 6)()
    call(libc.syscall, CAPABILITIES[os.uname().machine], header, none)

    instructions = settings["filter"]
    program = Program(len(instructions) // 8, instructions)
    call(libc.prctl, SECCOMP, FILTER, ctypes.byref(program), 0, 0)


def describe(error: BaseException) -> str:
    """`AssertionError in line 7: …`, without importing `traceback`."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    at = error.__traceback__
    while at is not None:
        if at.tb_frame.f_code.co_filename == "program.py":
            line = at.tb_lineno
        at = at.tb_next
    try:
        text = str(error)
    except BaseException:  # the program's own class of errors
        text = ""
    where = "" if line is None else f" in line {line}"
    return f"{type(error).__name__}{where}: {text[:SHOWN]}"


def main(channel: int) -> None:
    """Runs the program on standard input and reports on `channel`."""
    # Taken now: the program may put something else in their place.
    read, write, leave = os.read, os.write, os._exit
    settings = marshal.loads(sys.stdin.buffer.read())
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    module = type(sys)("__main__")
    sys.modules["__main__"] = module
    failure = ""
    try:
        for name, most in settings["limits"]:
            limit(name, most)
        if settings["isolated"]:
            isolate(settings)
        exec(compile(settings["program"], "program.py", "exec"), module.__dict__)
    except BaseException as error:
        failure = describe(error) or "error"
    word = read(channel, settings["word_length"])
    write(channel, word + failure.encode(errors="replace"))
    leave(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
