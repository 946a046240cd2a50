"""Programs of other languages: compiled, run, and kept within their limits."""

import os
import re
import time
from pathlib import Path

import pytest

from ebft.sandbox import LANGUAGES, SandboxOptions, run_tests, why_not_here

OPTIONS = SandboxOptions()


def skip_without(name):
    """Asked when a test runs, because asking compiles and runs a program."""
    if why := why_not_here(name, OPTIONS):
        pytest.skip(why)


WRONG = {
    "js": ("=> 1;", "=> 2;", "=> process.exit(0);"),
    "java": ("return 1", "return 2", "System.exit(0); return 1"),
    "cpp": ("return 1", "return 2", "exit(0)"),
    "rs": ("{ 1 }", "{ 2 }", "{ std::process::exit(0) }"),
    "go": ("return 1", "return 2", "os.Exit(0); return 1"),
    "pl": ("[1]", "[2]", "exit 0"),
    "sh": ("echo 1", "echo 2", "exit 0"),
    "lua": ("return 1", "return 2", "os.exit(0)"),
}
"""By language: the statement of the probe's function, a wrong one, and one that leaves."""


@pytest.mark.parametrize("name", LANGUAGES)
def test_a_right_program_passes_and_others_do_not(name):
    skip_without(name)
    right, tests = LANGUAGES[name].probe
    returned, wrong, leaves = WRONG[name]
    assert returned in right
    assert run_tests(name, right, tests, OPTIONS).passed
    for body in (wrong, leaves, "§ no program {{{ ((("):
        outcome = run_tests(name, right.replace(returned, body), tests, OPTIONS)
        assert not outcome.passed, body
        assert outcome.error
    assert not run_tests(name, "", tests, OPTIONS).passed


@pytest.mark.parametrize(
    ("name", "tests", "program"),
    [
        (
            "java",
            "void main() { a(); }\n}\n",
            'void main() { a(); \nSystem.out.println("W");\n}\n}\n',
        ),
        ("cpp", "int main() { a(); }", 'int main() { a(); \n__builtin_puts("W");\n}'),
        ("sh", "[[ 1 ]] # }", '[[ 1 ]] # }\necho "W"\n'),
    ],
)
def test_the_word_is_printed_at_the_end_of_the_tests(name, tests, program):
    assert LANGUAGES[name].program("code", tests, "W") == f"code\n{program}"


def test_an_assertion_of_javascripts_console_throws():
    skip_without("js")
    for value, passes in ((1, True), (2, False)):
        tests = f"console.assert(f() === {value});"
        assert run_tests("js", "const f = () => 1;", tests, OPTIONS).passed == passes


def test_a_language_that_is_not_installed_is_said(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    options = SandboxOptions(wall_seconds=19)  # not asked about before
    assert why_not_here("lua", options) == (
        "Lua is not installed (lua); it needs lua with luaunit (lua5.4 lua-unit)"
    )


@pytest.mark.parametrize(
    "attempt",
    [
        "cat {outside}",
        "echo x > {outside}",
        "rm {outside}",
        "chmod 777 {outside}",
        "ln -s {outside} link",
        "kill -0 {parent}",
        "echo > /dev/tcp/127.0.0.1/9",
        "ls /proc/{parent}",
        "unshare -Ur true",
        "setsid true",
        "cat /etc/passwd",
        "mount -t tmpfs none .",
        "ulimit -t unlimited && ulimit -Hf unlimited",
    ],
)
def test_a_shell_gets_nothing_outside_of_its_folder(tmp_path, attempt):

    outside = tmp_path / "outside"
    outside.write_text("secret")
    command = attempt.format(outside=outside, parent=os.getpid())
    tests = f"if {command}; then exit 1; fi"
    assert run_tests("sh", "", tests, OPTIONS).passed, command
    assert outside.read_text() == "secret"


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("while :; do :; done", "CPU time|signal"),
        ("for i in {1..4}; do while :; do :; done & done; wait", "CPU time"),
        ("x=a; while :; do x=$x$x; done", "CPU time|memory|signal|cannot allocate"),
        ("for i in {1..40}; do head -c 4M /dev/zero > file$i || exit 3; done", "MiB|status 3"),
        ("head -c 60M /dev/zero > file || exit 3", "status 3|signal"),
        ("for i in {1..2000}; do : > file$i || exit 3; done", "status 3"),
        (
            "for i in {1..400}; do sleep 9 & done; [[ $(jobs | wc -l) = 400 ]]; exit",
            "status|signal",
        ),
    ],
)
def test_limits_hold_over_all_processes(program, why):
    outcome = run_tests("sh", program, "", SandboxOptions(cpu_seconds=2, wall_seconds=60))
    assert not outcome.passed

    assert re.search(why, outcome.error), outcome.error


def test_a_program_that_waits_is_stopped():
    outcome = run_tests("sh", "sleep 60", "", SandboxOptions(wall_seconds=1))
    assert outcome.error == "stopped after 1 s"


def test_memory_counts_all_processes_together():
    one = "perl -e 'my $x = \"a\" x 250_000_000; sleep 3' &\n"
    options = SandboxOptions(memory_mib=256)  # and 256 of the language
    outcome = run_tests("sh", one * 4 + "wait", "", options)
    assert not outcome.passed
    assert "more than 512 MiB of memory" in outcome.error
    assert run_tests("sh", one + "wait", "", options).passed


@pytest.mark.parametrize(
    "source",
    [
        '#include "/etc/passwd"\nint f() { return 1; }',
        "template<int n> struct T { T<n + 1> t; };\nT<0> t;\nint f() { return 1; }",
        "#include __FILE__\nint f() { return 1; }",
    ],
)
def test_a_compiler_is_within_the_limits_too(source):
    skip_without("cpp")
    outcome = run_tests("cpp", source, LANGUAGES["cpp"].probe[1], OPTIONS)
    assert not outcome.passed
    assert outcome.error.startswith("does not compile: ")


def test_no_process_outlives_its_program():
    assert run_tests("sh", "sleep 97531 & sleep 97531 &", "", OPTIONS).passed

    def lines():
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                yield Path("/proc", name, "cmdline").read_bytes()
            except OSError:
                continue

    until = time.monotonic() + 30  # the kernel ends them one after the other
    while any(b"97531" in line for line in lines()):
        assert time.monotonic() < until
        time.sleep(0.1)
