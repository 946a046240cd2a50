"""The sandbox: runs Python programs that a model wrote, so that they can do nothing but compute.

`run_apart` runs a program and its tests, in two processes, which talk by `values` and `calls`;
`checking` is what both do. For one program
`run_python` is all of it. `options` says how much a program may use, `syscalls` and `landlock` what
the kernel lets it do, `counting` how often; `child` is what starts in the process that the program
runs in.
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
