"""The sandbox: runs Python programs that a model wrote, so that they can do nothing but compute.

`run_python` is all of it. `options` says how much a program may use, `syscalls` and `landlock` what
the kernel lets it do, `counting` how often; `child` is what starts in the process that the program
runs in.
"""

from ebft.sandbox.options import SandboxOptions
from ebft.sandbox.run import Outcome, require, run_python

__all__ = ["Outcome", "SandboxOptions", "require", "run_python"]
