"""Programs that must not pass, that must not get away, and after which the machine is as before."""

import os
import platform
import socket
import sys
import threading

import psutil
import pytest

from ebft.errors import SandboxError
from ebft.sandbox import SandboxOptions, require, run, run_python, syscalls

LINUX = sys.platform == "linux"
SHORT = SandboxOptions(cpu_seconds=1, wall_seconds=30)


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path, monkeypatch):
    """No process of ours and no folder of the sandbox is there after a program."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = set(psutil.Process().children(recursive=True))
    yield
    assert set(psutil.Process().children(recursive=True)) == before
    assert list(tmp_path.glob("ebft-sandbox-*")) == []


def test_running_to_the_end_is_passing():
    assert run_python("def f(x):\n    return x + 1\nassert f(1) == 2", SHORT).passed


@pytest.mark.parametrize(
    "program",
    [
        "import dataclasses\n@dataclasses.dataclass\nclass A: x: 'A'\nA(1)",
        "import pickle\nclass A: pass\npickle.loads(pickle.dumps(A()))",
        "import asyncio\nasync def f(): await asyncio.sleep(0)\nasyncio.run(f())",
        "import threading\nt = threading.Thread(target=print)\nt.start()\nt.join()",
        "import tempfile\nwith tempfile.TemporaryFile() as f: f.write(b'x')",
        "import datetime, hashlib, numbers, secrets, statistics, unicodedata, uuid, zoneinfo",
        "import sys\nsys.setrecursionlimit(5000)\ndef f(n): return n and f(n - 1)\nf(4000)",
        "assert __name__ == '__main__'\nprint('é')",
    ],
)
def test_ordinary_programs_do_not_notice(program):
    assert run_python(program, SHORT).error == ""


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("x = 1\nassert 1 == 2, 'no'", "AssertionError in line 2: no"),
        ("x = 1\ndef f(:", "SyntaxError in line 2"),
        ("raise ValueError", "ValueError in line 1"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("import os; os._exit(0)", "left before its end, with status 0"),
        ("print('passed'); raise SystemExit", "SystemExit"),
        ("import sys; sys.stdout.close(); sys.stderr.close(); raise KeyboardInterrupt", "Keyb"),
        ("class E(Exception):\n    def __str__(self): raise self\nraise E", "E in line 3"),
        ("import ctypes; ctypes.string_at(0)", "killed by SIGSEGV"),
    ],
)
def test_anything_else_is_not(program, why):
    outcome = run_python(program, SHORT)
    assert not outcome.passed
    assert why in outcome.error


@pytest.mark.parametrize(
    "write",
    [
        "os.write(fd, b'passed')",
        "os.write(fd, b'\\0' * 16)",
        "os.write(fd, os.read(fd, 1)) if fd == 0 else os.write(fd, b'x' * 10**5)",
    ],
)
def test_writing_whatever_to_whoever_listens(write):
    program = (
        f"import os\nfor fd in range(64):\n    try: {write}\n    except OSError: pass\nos._exit(0)"
    )
    assert not run_python(program, SHORT).passed


def test_an_endless_loop():
    outcome = run_python("while True: pass", SHORT)
    assert not outcome.passed
    assert "CPU time" in outcome.error


def test_waiting_for_ever():
    quick = SandboxOptions(wall_seconds=0.5)
    assert run_python("import time; time.sleep(60)", quick).error == "stopped after 0.5 s"


def test_a_loop_that_ignores_signals():
    program = (
        "import signal\nfor s in range(1, 65):\n"
        "    try: signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError): pass\n"
        "while True: pass"
    )
    assert not run_python(program, SHORT).passed


def test_a_fork_bomb():
    outcome = run_python("import os\nwhile True: os.fork()", SHORT)
    assert not outcome.passed
    assert "PermissionError" in outcome.error


@pytest.mark.parametrize("call", ["subprocess.run(['true'])", "os.system('true') and 1/0"])
def test_other_programs(call):
    assert not run_python(f"import os, subprocess\n{call}", SHORT).passed


def test_a_thread_bomb():
    program = (
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(9,)).start()"
    )
    assert not run_python(program, SHORT).passed


def test_ten_gigabytes():
    assert "MemoryError" in run_python("x = bytearray(10 * 2**30)", SHORT).error
    assert not run_python("x = []\nwhile True: x.append(bytearray(2**20))", SHORT).passed


class TestFiles:
    @pytest.mark.parametrize(
        "attempt",
        [
            "open(path).read()",
            "open(path, 'w')",
            "open(path, 'a')",
            "os.remove(path)",
            "os.rename(path, 'here')",
            "os.link(path, 'here')",
            "os.symlink(path, 'here')",
            "os.chmod(path, 0o777)",
            "os.chown(path, 1, 1)",
            "os.utime(path)",
            "os.truncate(path, 0)",
            "os.listdir(os.path.dirname(path))",
            "open(path + '.new', 'w')",
            "os.mkdir(path + '.new')",
            "open('../new', 'w')",
        ],
    )
    def test_nothing_outside_is_reached(self, tmp_path, attempt):
        outside = tmp_path / "secret"
        outside.write_text("x")
        before = outside.stat()
        outcome = run_python(f"import os\npath = {str(outside)!r}\n{attempt}", SHORT)
        assert not outcome.passed
        assert "PermissionError" in outcome.error
        assert outside.stat() == before
        assert outside.read_text() == "x"
        assert os.listdir(tmp_path) == ["secret"]

    def test_its_folder_is_its_own(self):
        program = (
            "import os\nassert os.listdir() == []\nopen('x', 'w').write('1')\n"
            "os.rename('x', 'y')\nassert open('y').read() == '1'\nos.remove('y')"
        )
        assert run_python(program, SHORT).error == ""

    def test_a_large_file(self):
        assert "File too large" in run_python("open('x', 'wb').write(bytes(2**24))", SHORT).error


class TestSecrets:
    def test_the_environment_is_not_given_away(self, monkeypatch):
        monkeypatch.setenv("EBFT_SECRET", "x")
        assert run_python("import os; assert 'EBFT_SECRET' not in os.environ", SHORT).passed

    @pytest.mark.parametrize("file", ["environ", "mem", "maps", "cmdline"])
    def test_nor_read_off_the_process_that_runs_it(self, file):
        program = f"import os\nopen('/proc/' + str(os.getppid()) + '/{file}', 'rb').read(1)"
        assert "PermissionError" in run_python(program, SHORT).error


class TestNetwork:
    @pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_UNIX"])
    def test_no_connection_can_be_made(self, tmp_path, family):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            program = (
                f"import socket\ns = socket.socket(socket.{family})\n"
                f"s.connect(('127.0.0.1', {port}))"
            )
            assert "PermissionError" in run_python(program, SHORT).error

    @pytest.mark.parametrize(
        "attempt",
        [
            "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b'x', path)",
            "socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)",
            "socket.socketpair(30, socket.SOCK_STREAM)",
            "socket.socketpair()[0].sendto(b'x', path)",
            "socket.socketpair()[0].sendmsg([b'x'], [], 0, path)",
        ],
    )
    def test_no_datagram_leaves(self, tmp_path, attempt):
        path = str(tmp_path / "log")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outside:
            outside.bind(path)
            outside.setblocking(False)
            program = f"import socket\npath = {path!r}\n{attempt}"
            assert "PermissionError" in run_python(program, SHORT).error
            with pytest.raises(BlockingIOError):
                outside.recv(1)

    def test_a_pair_of_its_own_is_for_itself(self):
        program = (
            "import socket\na, b = socket.socketpair()\na.setblocking(False)\na.send(b'x')\n"
            "assert b.recv(1) == b'x'"
        )
        assert run_python(program, SHORT).error == ""


class TestProcesses:
    @pytest.mark.parametrize("target", ["os.getppid()", "1", "-1", "0"])
    def test_none_is_killed(self, target):
        received = []
        thread = threading.Thread(target=received.append, args=(1,))
        program = f"import os, signal\nos.kill({target}, signal.SIGTERM)"
        assert not run_python(program, SHORT).passed
        thread.start()
        thread.join()
        assert received == [1], "this process goes on"

    def test_none_is_traced_or_read(self):
        program = (
            "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
            "ATTACH, SEIZE = 16, 0x4206\n"
            "for request in (ATTACH, SEIZE):\n"
            "    if libc.ptrace(request, os.getppid(), 0, 0) == 0: os._exit(0)\n"
            "    assert ctypes.get_errno() == 1\n"
            "assert libc.process_vm_readv(os.getppid(), 0, 0, 0, 0, 0) == -1\n"
            "assert ctypes.get_errno() == 1\n"
            "assert libc.fcntl(0, 8, os.getppid()) == -1, 'F_SETOWN'\n"
            "assert libc.setpriority(0, 0, 0) == -1"
        )
        assert run_python(program, SHORT).error == ""

    def test_limits_stay(self):
        program = (
            "import resource\n"
            "for limit in (resource.RLIMIT_AS, resource.RLIMIT_CPU):\n"
            "    try: resource.setrlimit(limit, (-1, -1))\n"
            "    except (OSError, ValueError): continue\n"
            "    raise SystemError"
        )
        assert run_python(program, SHORT).error == ""


def test_endless_output_goes_nowhere():
    before = psutil.Process().memory_info().rss
    program = "import sys\nwhile True: sys.stdout.write('x' * 10**6); sys.stderr.write('x' * 10**6)"
    assert not run_python(program, SHORT).passed
    assert psutil.Process().memory_info().rss - before < 2**26


def test_a_verdict_does_not_depend_on_the_hash_seed():
    program = "assert list({'a', 'b', 'c', 'd', 'e'})[0] == 'a'"
    assert len({run_python(program, SHORT).passed for _ in range(6)}) == 1


class TestAMachineThatCannot:
    @pytest.fixture(autouse=True)
    def forget(self):
        run._problem.cache_clear()
        yield
        run._problem.cache_clear()

    def test_it_refuses_and_says_how_to_accept_less(self, monkeypatch):
        monkeypatch.setattr("ebft.sandbox.landlock.version", lambda: 0)
        with pytest.raises(SandboxError, match="it needs Landlock, of Linux") as error:
            run_python("x = 1", SHORT)
        assert "set isolation: limits in this `sandbox` section" in str(error.value)
        limits = SandboxOptions(isolation="limits")
        require(limits)
        assert run_python("x = 1", limits).passed

    def test_another_processor(self, monkeypatch):
        monkeypatch.setattr(platform, "machine", lambda: "riscv64")
        with pytest.raises(SandboxError, match="Linux on x86_64 or aarch64, and this is"):
            require(SHORT)

    def test_a_filter_that_lets_datagrams_out(self, monkeypatch):
        numbers = (syscalls.SOCKETPAIR, syscalls.SENDTO)
        lax = syscalls.CALLS | {str(number): number for number in numbers}
        monkeypatch.setattr(syscalls, "CALLS", lax)
        with pytest.raises(SandboxError, match=r"the trial program failed .*datagram was possible"):
            require(SHORT)

    def test_a_kernel_that_only_claims_to(self, monkeypatch):
        """Isolation that does nothing is found out by the trial."""
        everything = b"\x06\0\0\0\0\0\xff\x7f"  # RETURN ALLOW
        monkeypatch.setattr("ebft.sandbox.run.seccomp_filter", lambda machine: everything)
        with pytest.raises(SandboxError, match=r"the trial program failed .*was possible"):
            require(SHORT)


@pytest.mark.parametrize("isolation", ["full", "limits"])
class TestOptionsWithWhichNoProgramRuns:
    """Each would be given 0, and nobody would know why."""

    def test_a_limit_that_the_system_refuses(self, isolation):
        options = SandboxOptions(isolation=isolation, memory_mib=2**44)
        failure = r"does not finish \(OSError: RLIMIT_AS = 1844"
        with pytest.raises(SandboxError, match=failure) as error:
            require(options)
        assert f"section (isolation: {isolation}, cpu_seconds: 5, " in str(error.value)
        assert f"memory_mib: {2**44}" in str(error.value)

    def test_an_interpreter_that_does_not_start(self, isolation, monkeypatch):
        require(SHORT)  # isolation itself is tried once in a process
        monkeypatch.setattr(run, "PYTHON", ("false",))
        with pytest.raises(SandboxError, match="before its end, with status 1"):
            require(SandboxOptions(isolation=isolation, cpu_seconds=7))
