"""The sandbox: runs Python programs that a model wrote, so that they can only compute.

apart                  `run_apart`: a program and its tests, in two processes
  checking, calls        the code of both processes, and the calls between them
  values                 encoding of the values that they exchange
run                    `run_python`: one program in one process, and its limits
  child                  the script that starts in a program's process
  syscalls               the system calls that a program may make, and how often
  landlock               the files that a program may use
"""

from ebft.sandbox.apart import Check, run_apart, run_without_program
from ebft.sandbox.run import Outcome, SandboxOptions, require, run_python

__all__ = [
    "Check",
    "Outcome",
    "SandboxOptions",
    "require",
    "run_apart",
    "run_python",
    "run_without_program",
]
