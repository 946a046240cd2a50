"""What the seccomp filters and Landlock's rules let through, on every machine and kernel."""

import errno
import os
import platform
import struct

import pytest

from ebft.errors import SandboxError
from ebft.sandbox import SandboxOptions, landlock, require, run, run_python, syscalls
from ebft.sandbox.syscalls import ALLOW, ASK, MACHINES, counting_filter, seccomp_filter

REFUSE = syscalls.ERRNO | errno.EPERM
I386, ARM = 0x40000003, 0x40000028
SHORT = SandboxOptions(cpu_seconds=1, wall_seconds=30)


def decide(instructions, audit, number, *arguments):
    """What the kernel's interpreter makes of a filter."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, audit, 0, *padded)
    program, at, value = list(struct.iter_unpack("<HBBI", instructions)), 0, 0
    while True:
        code, yes, no, k = program[at]
        at += 1
        if code == syscalls.RETURN:
            return k
        if code == syscalls.LOAD:
            value = struct.unpack_from("<I", data, k)[0]
        elif code == syscalls.AND:
            value &= k
        else:
            passes = {syscalls.EQUAL: value == k, syscalls.ANY_BIT: bool(value & k)}[code]
            at += yes if passes else no


@pytest.fixture(params=MACHINES)
def machine(request):
    return MACHINES[request.param]


@pytest.fixture
def filtered(machine):
    """What becomes of a call, given by its pair of numbers."""
    instructions = seccomp_filter(machine)
    return lambda call, *arguments: decide(
        instructions, machine.audit, call[machine.column], *arguments
    )


def test_what_is_not_listed_is_refused(machine):
    instructions = seccomp_filter(machine)
    listed = {numbers[machine.column] for numbers in syscalls.CALLS.values()}
    with_zeros = (syscalls.FCNTL, syscalls.PRLIMIT, syscalls.SENDTO, syscalls.OPEN, syscalls.OPENAT)
    listed |= {numbers[machine.column] for numbers in with_zeros}
    allowed = {n for n in range(2000) if decide(instructions, machine.audit, n) == ALLOW}
    assert allowed == listed - {None}


def test_another_convention_of_calls_is_refused(machine):
    """Its numbers mean other calls."""
    instructions = seccomp_filter(machine)
    for audit in {I386, ARM, *(each.audit for each in MACHINES.values())} - {machine.audit}:
        assert {decide(instructions, audit, n) for n in range(500)} == {REFUSE}
    for x32 in (2**30, 2**31, 2**32 - 500):
        assert {decide(instructions, machine.audit, x32 + n) for n in range(500)} == {REFUSE}


@pytest.mark.parametrize(
    ("call", "argument"), [(syscalls.PRLIMIT, 2), (syscalls.SENDTO, 4)], ids=["prlimit", "sendto"]
)
def test_a_pointer_is_null_in_both_halves(filtered, call, argument):
    before = [7] * argument
    assert filtered(call, *before, 0) == ALLOW
    for pointer in (1, 1 << 31, 1 << 32, 1 << 46, 1 << 63):
        assert filtered(call, *before, pointer) == REFUSE


def test_only_a_thread_that_shares_its_files_is_started(filtered):
    for flags in (0x3D0F00, 0x7D0F00):
        assert filtered(syscalls.CLONE, flags) == ALLOW
        for other in (0x400, 0x10000, 0x10000000, 0x20000):
            assert filtered(syscalls.CLONE, flags ^ other) == REFUSE
    assert filtered(syscalls.CLONE, 0x11) == REFUSE
    assert filtered(syscalls.CLONE3) == syscalls.ERRNO | errno.ENOSYS


def test_opening_takes_a_right_that_landlock_asks_for(filtered, machine):
    opening = [(syscalls.OPENAT, 2)] + [(syscalls.OPEN, 1)] * (machine.column == 0)
    for call, place in opening:
        for flags in (0, 1, 2, 0x40, 0x42, 0x201, 0x202, 0x241, 0x80241, 0x410002):
            assert filtered(call, *[9] * place, flags) == ALLOW, flags
        for flags in (3, 0x43, 0x80003, 0x200, 0x203, 0x240, 0x243, 0x80200, 0x200200):
            assert filtered(call, *[9] * place, flags) == REFUSE, flags


def test_no_command_that_signals_or_changes_something_else(filtered):
    for command in (8, 10, 15, 1024, 1026, 1031, 1033):
        assert filtered(syscalls.FCNTL, 0, command) == REFUSE
    for command in (0x5402, 0x540E, 0x5412, 0x5452, 0x4008660F):
        assert filtered(syscalls.IOCTL, 0, command) == REFUSE
    for command in syscalls.IOCTL_COMMANDS:
        assert filtered(syscalls.IOCTL, 0, command) == ALLOW


def test_only_a_pair_of_local_streams(filtered):
    assert filtered(syscalls.SOCKETPAIR, 1, 0x80001) == ALLOW
    for family, kind in ((1, 2), (1, 5), (1, 0x80002), (2, 1), (30, 1), (0, 1)):
        assert filtered(syscalls.SOCKETPAIR, family, kind) == REFUSE


def test_what_is_counted(machine):
    instructions = counting_filter(machine)
    opening = [(syscalls.OPENAT, 2)] + [(syscalls.OPEN, 1)] * (machine.column == 0)
    for call, place in opening:
        for flags in (0x40, 0x241, 0xC2, 0x410002, 0x400000):
            given = (call[machine.column], *[0] * place, flags)
            assert decide(instructions, machine.audit, *given) == ASK, flags
        for flags in (0, 2, 0x10000, 0x80000, 0x201):
            given = (call[machine.column], *[0xFFFFFFFF] * place, flags)
            assert decide(instructions, machine.audit, *given) == ALLOW, flags
    assert decide(instructions, machine.audit, syscalls.CLONE[machine.column], 0x3D0F00) == ASK
    assert decide(instructions, machine.audit, 3) == ALLOW


@pytest.mark.skipif(platform.machine() != "x86_64", reason="a second set of calls of x86-64")
def test_the_kernel_refuses_the_other_conventions():
    """The calls themselves: `getpid` of x32, and of i386 by its interrupt."""
    program = (
        "import ctypes, mmap\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "assert libc.syscall(0x40000000 + 39) == -1\nassert ctypes.get_errno() == 1, 'x32'\n"
        "code = mmap.mmap(-1, 4096, prot=7)\n"
        "code.write(bytes.fromhex('b814000000cd80c3'))\n"
        "at = ctypes.addressof(ctypes.c_char.from_buffer(code))\n"
        "got = ctypes.CFUNCTYPE(ctypes.c_int)(at)()\nassert got == -1, got"
    )
    # Where the kernel was built without them, the interrupt is a fault.
    assert run_python(program, SHORT).error in ("", "killed by SIGSEGV")


class TestOlderKernels:
    """The rules of an older Landlock, which this kernel enforces as that one would."""

    @pytest.fixture(autouse=True, params=[1, 2, 3, 5])
    def known(self, request, monkeypatch):
        if landlock.version() < request.param:
            pytest.skip("this kernel is older still")
        monkeypatch.setattr(landlock, "version", lambda: request.param)
        run._problem.cache_clear()
        yield request.param
        run._problem.cache_clear()

    def test_its_rights_are_all_taken_away(self, known):
        everything = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 5: 0xFFFF}[known]
        assert landlock.handled(known) == everything
        assert all(allowed & ~everything == 0 for _, allowed in landlock.rules("/tmp", known))

    @pytest.mark.parametrize("readable", [True, False])
    @pytest.mark.parametrize(
        "attempt",
        [
            "os.open(path, os.O_RDONLY | os.O_TRUNC)",
            "os.open(path, os.O_TRUNC | 3)",
            "os.open(path, 3)",
            "os.open(path, os.O_TRUNC | os.O_CREAT)",
            "os.truncate(path, 0)",
            "os.open(path, os.O_WRONLY | os.O_TRUNC)",
        ],
    )
    def test_no_file_is_emptied(self, tmp_path, monkeypatch, attempt, readable):
        outside = tmp_path / "library"
        outside.write_text("x")
        if readable:
            monkeypatch.setattr(landlock, "READABLE", (*landlock.READABLE, str(outside)))
        program = f"import os\npath = {str(outside)!r}\n{attempt}"
        assert "PermissionError" in run_python(program, SHORT).error
        assert outside.read_text() == "x"

    def test_its_own_files_are(self):
        program = (
            "open('x', 'w').write('long')\nopen('x', 'w').write('1')\n"
            "assert open('x').read() == '1'\n"
            "with open('x', 'r+') as file: file.truncate(0)\nassert open('x').read() == ''"
        )
        assert run_python(program, SHORT).error == ""

    @pytest.mark.parametrize(("lax", "what"), [((3, 0), "emptying"), ((3, 3), "opening")])
    def test_the_trial_notices(self, monkeypatch, lax, what):
        monkeypatch.setattr(syscalls, "OPENING", (*syscalls.OPENING, lax))
        with pytest.raises(SandboxError, match=f"the trial program failed .* {what} was possible"):
            require(SHORT)


def test_the_interpreter_is_not_written_to():
    assert "PermissionError" in run_python("import os\nopen(os.__file__, 'a')", SHORT).error
    assert os.path.exists(os.__file__)
