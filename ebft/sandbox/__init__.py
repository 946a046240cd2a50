"""The sandbox: runs Python programs that a model wrote, so that they can only compute.

two_processes          `run_in_two_processes`: a program and its tests, in two processes
  checking, calls        the code of both processes, and the calls between them
  values                 encoding of the values that they exchange
run                    `run_python`: one program in one process, and its limits
  child                  the script that starts in a program's process
  syscalls               the system calls that a program may make, and how often
  landlock               the files that a program may use
"""

from ebft.sandbox.run import Outcome, SandboxOptions, require, run_python
from ebft.sandbox.two_processes import Check, run_in_two_processes, run_without_program

__all__ = [
    "Check",
    "Outcome",
    "SandboxOptions",
    "require",
    "run_in_two_processes",
    "run_python",
    "run_without_program",
]
