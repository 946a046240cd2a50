"""The files that a program may access: Landlock's rules, which any process can apply to itself.

Landlock is in Linux 5.13 and newer, if the kernel was built with it. Only files that are listed
here can be opened, created, renamed or removed.
"""

from __future__ import annotations

import ctypes
import os
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

CREATE_RULESET = 444
VERSION_FLAG = 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REGULAR, REFER = (
    1 << bit for bit in (0, 1, 2, 3, 4, 5, 7, 8, 13)
)
TRUNCATE = 1 << 14
RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""All file rights of the kernel, by the interface version that introduced them."""

READABLE = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/nix/store", "/usr/share/zoneinfo",
    "/etc/ld.so.cache", "/etc/localtime", "/dev/zero", "/dev/random", "/dev/urandom",
)  # fmt: skip
"""Readable besides the interpreter's own files: shared libraries, time zones, random numbers."""

SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/nix/store", "/etc/alternatives")
"""Folders of programs and libraries."""
READABLE_FILES = ("/etc/ld.so.cache", "/etc/localtime")

Rule = tuple[str, int]


def version() -> int:
    """Returns the kernel's version of Landlock; 0 if it has none, or if it is disabled."""
    if sys.platform != "linux":
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    return max(int(libc.syscall(CREATE_RULESET, None, 0, VERSION_FLAG)), 0)


def handled(known: int) -> int:
    """Returns every right that version `known` of Landlock can restrict."""
    return RIGHTS[max(v for v in RIGHTS if v <= known)]


def rules(scratch: str, known: int) -> list[Rule]:
    """Returns the paths that may be opened, with their rights. Only the scratch folder is writable,
    without subfolders."""
    interpreter = (
        sysconfig.get_path("stdlib"),
        sysconfig.get_path("platstdlib"),
        sysconfig.get_config_var("DESTSHARED"),
        str(Path(sys.base_prefix, "lib")),
    )
    paths = dict.fromkeys((*(path for path in interpreter if path), *READABLE))
    readable = [
        (path, READ_FILE | (READ_DIR if os.path.isdir(path) else 0))
        for path in paths
        if os.path.exists(path)
    ]
    own = READ_FILE | READ_DIR | WRITE_FILE | REMOVE_FILE | MAKE_REGULAR
    own |= TRUNCATE & handled(known)
    return [*readable, ("/dev/null", READ_FILE | WRITE_FILE), (scratch, own)]


def rules_of_tools(scratch: str, known: int, tools: Iterable[str]) -> list[Rule]:
    """Returns the paths that a compiler or an interpreter and its programs may open.

    All programs and libraries of the system, and the folders `tools`, can be read and executed; the
    scratch folder can be written too, with subfolders.
    """
    executable = READ_FILE | READ_DIR | EXECUTE
    folders = [path for path in (*SYSTEM, *tools) if os.path.isdir(path)]
    files = [path for path in READABLE_FILES if os.path.isfile(path)]
    own = executable | WRITE_FILE | REMOVE_FILE | REMOVE_DIR | MAKE_DIR | MAKE_REGULAR
    own |= (TRUNCATE | REFER) & handled(known)
    devices = [(path, READ_FILE) for path in ("/dev/zero", "/dev/random", "/dev/urandom")]
    return [
        *((path, executable) for path in folders),
        *((path, READ_FILE) for path in files),
        *devices,
        ("/dev/null", READ_FILE | WRITE_FILE),
        (scratch, own),
    ]
