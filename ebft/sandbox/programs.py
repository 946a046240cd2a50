"""Tests a program of another language than Python: compiled and run in one isolated folder."""

from __future__ import annotations

import secrets
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from ebft.sandbox.command import Ended, Limits, run_command
from ebft.sandbox.languages import LANGUAGES, Language
from ebft.sandbox.run import Outcome, SandboxOptions, require

SCRATCH_MIB = 96
"""Room for what a compiler writes, besides the program's own `scratch_mib`."""
LINE = 300
"""Characters of a compiler's error that are shown."""


def run_tests(name: str, code: str, tests: str, options: SandboxOptions) -> Outcome:
    """Returns whether `code`, with its `tests` after it, compiles and runs to their end.

    `name` is a key of `LANGUAGES`. The limits of `options` are those of the program; its compiler
    or virtual machine has what the table says besides. Raises `SandboxError` if this machine lacks
    the isolation that the options ask for, and `FileNotFoundError` without the language's tools.
    """
    require(options)
    language, word = LANGUAGES[name], f"ebft-{secrets.token_hex(8)}"
    program = language.program(code, tests, word)
    with tempfile.TemporaryDirectory(prefix="ebft-sandbox-") as created:
        folder = Path(created)
        (folder / language.file).write_text(program, "utf-8", errors="replace")
        if language.compile:
            command = language.command(language.compile)
            ended = _run(command, folder, language, options, seconds=language.compile_seconds)
            if ended.stopped or ended.status:
                return Outcome(False, f"does not compile: {_why(ended)}")
        if language.built:
            # Compilers may not set modes, because outside of the folder they could as well.
            (folder / language.built).chmod(0o700)
        ended = _run(language.start(program), folder, language, options)
    if ended.stopped or ended.status:
        return Outcome(False, _why(ended))
    if word.encode() not in ended.output:
        return Outcome(False, "left before the end of its tests")
    return Outcome(True)


def why_not_here(name: str, options: SandboxOptions) -> str | None:
    """Returns why programs of a language cannot be tested here, and what to install; None if they
    can. A small program is run once for each set of options."""
    return _why_not_here(name, options)


@cache
def _why_not_here(name: str, options: SandboxOptions) -> str | None:
    language = LANGUAGES[name]
    try:
        outcome = run_tests(name, *language.probe, options)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        return f"{language.title} is not installed ({error}); it needs {language.install}"
    if outcome.passed:
        return None
    return (
        f"{language.title}: even its small test program does not pass here ({outcome.error}); it "
        f"needs {language.install}, and limits in `sandbox` that leave room for them"
    )


def _run(
    command: list[str], folder: Path, language: Language, options: SandboxOptions, seconds: int = 0
) -> Ended:
    limits = Limits(
        cpu_seconds=options.cpu_seconds + seconds,
        wall_seconds=options.wall_seconds + 2 * seconds,
        memory_mib=options.memory_mib + language.memory_mib,
        scratch_mib=options.scratch_mib + SCRATCH_MIB,
    )
    return run_command(
        command, folder, limits, options,
        tools=language.tools(), environment=language.environment,
    )  # fmt: skip


def _why(ended: Ended) -> str:
    if ended.stopped:
        return ended.stopped
    lines = [line for line in ended.output.decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()] or lines[-1:]
    how = f"signal {-ended.status}" if ended.status < 0 else f"status {ended.status}"
    return f"ended with {how}: {' '.join(errors[:1])[:LINE]}"
