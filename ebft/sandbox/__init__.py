"""The sandbox: runs Python programs that a model wrote, so that they can do nothing but compute.

`run_python` runs one; `run_apart` runs one and its tests, in two processes. `options` says how much
a program may use, `syscalls` and `landlock` what the kernel lets it do, `child` is what starts in
the process that the program runs in. `values`, `calls` and `checking` is what a program and its
tests talk by.
"""

from ebft.sandbox.apart import Check, run_apart, run_without_program
from ebft.sandbox.options import SandboxOptions
from ebft.sandbox.run import Outcome, require, run_python

__all__ = [
    "Check",
    "Outcome",
    "SandboxOptions",
    "require",
    "run_apart",
    "run_python",
    "run_without_program",
]
