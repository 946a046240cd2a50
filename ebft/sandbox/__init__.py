"""The sandbox: runs programs that a model wrote, so that they can only compute.

two_processes          `run_in_two_processes`: a program and its tests, in two processes
  checking, calls        the code of both processes, and the calls between them
  values                 encoding of the values that they exchange
run                    `run_python`: one program in one process, and its limits
  child                  the script that starts in a program's process
  syscalls               the system calls that a program may make, and how often
  landlock               the files that a program may use
programs               `run_tests`: a program of another language and its tests
  languages              the table of languages
  command                `run_command`: a compiler or a program, its processes and their limits
"""

from ebft.errors import SandboxError
from ebft.sandbox.languages import LANGUAGES
from ebft.sandbox.programs import run_tests, why_not_here
from ebft.sandbox.run import Outcome, SandboxOptions, require, run_python
from ebft.sandbox.two_processes import Check, run_in_two_processes, run_without_program

__all__ = [
    "LANGUAGES",
    "Check",
    "Outcome",
    "SandboxError",
    "SandboxOptions",
    "require",
    "run_in_two_processes",
    "run_python",
    "run_tests",
    "run_without_program",
    "why_not_here",
]
