"""The `sandbox:` section of parts that run generated programs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from ebft.options import Options


class SandboxOptions(Options):
    """How generated programs are run: one process each, with limits, and isolated."""

    isolation: Literal["full", "limits"] = Field(
        "full",
        description="full: no network, no other processes, at most 256 threads, only a temporary "
        "folder (Linux with Landlock and seccomp, without privileges); limits: only the limits "
        "below. A program may then read, change and send everything that the user can: for "
        "programs that you trust",
    )
    cpu_seconds: PositiveInt = Field(5, description="CPU time of a program")
    wall_seconds: float = Field(
        20.0, gt=0, description="wall-clock time of a program; longer than its CPU time, so that "
        "no program fails because the machine is busy"
    )  # fmt: skip
    memory_mib: PositiveInt = Field(512, description="address space of a program, in MiB")
    scratch_mib: PositiveInt = Field(
        8, description="total size of a program's files, in MiB: it creates at most 64 files "
        "(modes w, a and x), each of at most a 64th of this. With `isolation: limits`, the size of "
        "each file"
    )  # fmt: skip
