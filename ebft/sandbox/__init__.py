"""The sandbox: runs Python programs that a model wrote, so that they can do nothing but compute.

apart                  a program and its check in two processes, so that it cannot fake the outcome
  checking               what each of the two does
  values, calls          how values and calls travel between them
run                    one program in a process of its own, and how much it may use
  child                  what starts in that process
  syscalls, landlock     which system calls it may make and how often; which files it reaches
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
