"""The `sandbox:` section of parts that run generated programs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from ebft.parts import Options


class SandboxOptions(Options):
    """How generated programs are run: one process each, with limits, and isolated."""

    isolation: Literal["full", "limits"] = Field(
        "full",
        description="full: no network, no other processes, at most 256 threads, no files but a "
        "temporary folder (Linux with Landlock and seccomp, without privileges); limits: only what "
        "is below. A program may then read, change and send whatever the user can: for programs "
        "you trust",
    )
    cpu_seconds: PositiveInt = Field(5, description="CPU time of a program")
    wall_seconds: float = Field(
        20.0, gt=0, description="time of a program on the clock; longer than its CPU time, so that "
        "a busy machine fails no program"
    )  # fmt: skip
    memory_mib: PositiveInt = Field(512, description="address space of a program, in MiB")
    scratch_mib: PositiveInt = Field(
        8, description="size of its files together, in MiB: a program opens at most 64 to create "
        "them (modes w, a and x), each of at most a 64th of this. With `isolation: limits`, the "
        "size of each file"
    )  # fmt: skip
