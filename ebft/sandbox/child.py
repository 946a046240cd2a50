"""The script of a program's process: sets the limits, then runs the program.

It is not imported by ebft but run as `python child.py CHANNEL`, with settings and program on
standard input. With a `command` in the settings, it becomes that command instead of running a
program (`ebft.sandbox.command`). It imports very little, because its start takes most of the time
of a short program.

A secret word waits in the channel. This script sends it back at the program's end, which means "it
ran to its end"; a program that exits early has not sent it. Program and script share an
interpreter, so a program that was written to defeat this file could send the word. It still could
not get out of the sandbox.
"""

from __future__ import annotations

import ctypes
import marshal
import os
import resource
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` takes longer to import than all modules above
    from typing import Any

SHOWN = 300
NO_NEW_PRIVILEGES, DEATH_SIGNAL, SIGKILL = 38, 1, 9
ADD_RULE, RESTRICT_SELF, CREATE_RULESET = 445, 446, 444
CAPABILITIES = {"x86_64": 126, "aarch64": 91}
CAPABILITY_VERSION = 0x20080522
SECCOMP = {"x86_64": 317, "aarch64": 277}
SET_FILTER, WITH_LISTENER = 1, 8
SOCKET_LEVEL, DESCRIPTORS = 1, 1
BENEATH = 1


class Program(ctypes.Structure):
    """The kernel's `struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


class Beneath(ctypes.Structure):
    """The kernel's `struct landlock_path_beneath_attr`."""

    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


class Message(ctypes.Structure):
    """The C library's `struct msghdr`."""

    _fields_ = (
        ("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32),
        ("parts", ctypes.c_void_p), ("part_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t), ("flags", ctypes.c_int),
    )  # fmt: skip


class Descriptor(ctypes.Structure):
    """The C library's `struct cmsghdr`, with one file descriptor to send."""

    _fields_ = (
        ("length", ctypes.c_size_t), ("level", ctypes.c_int), ("kind", ctypes.c_int),
        ("number", ctypes.c_int),
    )  # fmt: skip


def limit(name: str, most: int) -> None:
    """Sets a resource limit permanently. Raises `OSError` naming it if the system refuses it."""
    try:
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))
    except (OSError, OverflowError, ValueError) as error:
        raise OSError(f"RLIMIT_{name} = {most}: {error}") from error


def call(function: Any, *arguments: Any) -> int:
    """Returns the result of a function of the C library. Raises `OSError` if it is an error."""
    result: int = function(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{os.strerror(ctypes.get_errno())} {arguments[:2]}")
    return result


def end_with(parent: int, seconds: int, libc: Any) -> None:
    """Makes this process end after `seconds`, and when `parent` ends, which cannot kill it then."""
    libc.alarm(seconds)
    if sys.platform == "linux":
        call(libc.prctl, DEATH_SIGNAL, SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the parent has already ended
        os._exit(1)


def isolate(settings: dict[str, Any], libc: Any, channel: int) -> None:
    """Applies Landlock, then seccomp, permanently. Raises `OSError` if the kernel refuses it.

    The process at the other end of `channel` gets a descriptor, on which it answers counted calls.
    """
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

    listener = add_filter(settings["counted"], WITH_LISTENER, libc)
    send_descriptor(listener, channel, libc)
    os.close(listener)
    add_filter(settings["filter"], 0, libc)


def add_filter(instructions: bytes, flags: int, libc: Any) -> int:
    """Adds a seccomp filter to the existing ones. Returns the listener, if `flags` ask for it."""
    program = Program(len(instructions) // 8, instructions)
    number = SECCOMP[os.uname().machine]
    try:
        return call(libc.syscall, number, SET_FILTER, flags, ctypes.byref(program))
    except OSError as error:
        what = "filter with a listener" if flags else "filter"
        raise OSError(error.errno, f"the kernel takes no seccomp {what}") from error


def send_descriptor(number: int, channel: int, libc: Any) -> None:
    """`socket.send_fds`; importing `socket` would double the time of this script."""
    byte = ctypes.create_string_buffer(1)
    part = (ctypes.c_size_t * 2)(ctypes.addressof(byte), 1)
    control = Descriptor(Descriptor.number.offset + 4, SOCKET_LEVEL, DESCRIPTORS, number)
    message = Message(
        None, 0, ctypes.addressof(part), 1, ctypes.addressof(control), ctypes.sizeof(control)
    )
    call(libc.sendmsg, channel, ctypes.byref(message), 0)


def error_text(error: BaseException) -> str:
    """Returns `AssertionError in line 7: …`, without importing `traceback`."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    at = error.__traceback__
    while at is not None:
        if at.tb_frame.f_code.co_filename == "program.py":
            line = at.tb_lineno
        at = at.tb_next
    try:
        text, is_programs = str(error), hasattr(error, "from_program")
    except BaseException:  # an error class of the program
        text, is_programs = "", True
    where = "" if line is None else f" in line {line}"
    # Its class may have the name of any other.
    whose = "program: " if is_programs else ""
    return f"{whose}{type(error).__name__}{where}: {text[:SHOWN]}"


def main(channel: int) -> None:
    """Runs the program on standard input and reports on `channel`."""
    # Saved now, because the program may replace them.
    read, write, leave = os.read, os.write, os._exit
    settings = marshal.loads(sys.stdin.buffer.read())
    os.close(0)
    os.open(os.devnull, os.O_RDONLY)  # becomes the new standard input
    module = type(sys)("__main__")
    sys.modules["__main__"] = module
    failure = ""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        end_with(settings["parent"], settings["seconds"], libc)
        for name, most in settings["limits"]:
            limit(name, most)
        if settings["isolated"]:
            isolate(settings, libc, channel)
        if "command" in settings:
            os.set_inheritable(channel, False)
            os.execve(settings["command"][0], settings["command"], settings["environment"])
        exec(compile(settings["program"], "program.py", "exec"), module.__dict__)
    except BaseException as error:
        failure = error_text(error) or "error"
    word = read(channel, settings["word_length"])
    write(channel, word + failure.encode(errors="replace"))
    leave(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
