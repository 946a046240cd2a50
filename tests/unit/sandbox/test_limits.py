"""How much a program may use, and that it ends, whatever becomes of the process that runs it."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from ebft.errors import SandboxError
from ebft.sandbox import SandboxOptions, require, run, run_python, syscalls

SHORT = SandboxOptions(cpu_seconds=5, wall_seconds=60)
BOTH = pytest.mark.parametrize("isolation", ["full", "limits"])
MIB = 2**20


def wait_for(what):
    deadline = time.monotonic() + 60
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class TestScratch:
    @pytest.mark.parametrize(
        "create",
        [
            "os.open(str(n), os.O_CREAT | os.O_RDWR)",
            "os.open('x', os.O_CREAT | os.O_RDWR); os.unlink('x')",
            "os.open('x', os.O_CREAT | os.O_RDWR); os.rename('x', 'y')",
            "os.open('.', os.O_TMPFILE | os.O_RDWR)",
        ],
    )
    def test_all_that_is_written_is_bounded(self, create):
        """However it is held: by a name, a descriptor, or a mapping of one page."""
        program = (
            "import ctypes, errno, os\nmmap, total = ctypes.CDLL(None).mmap, 0\n"
            "try:\n    for n in range(10**6):\n"
            f"        fd = {create}\n"
            "        try:\n"
            "            while True: total += os.write(fd, bytes(2**16))\n"
            "        except OSError as error:\n"
            "            if error.errno != errno.EFBIG: raise\n"
            "        mmap(None, 4096, 1, 1, fd, 0)\n        os.close(fd)\n"
            "except OSError as error:\n    assert error.errno == errno.EDQUOT, error\n"
            "assert total == 3 * 2**20, total"
        )
        options = SHORT.model_copy(update={"scratch_mib": 3})
        assert run_python(program, options).error == ""

    def test_no_file_grows_by_its_length(self):
        program = (
            "import os\nfd = os.open('x', os.O_CREAT | os.O_RDWR)\n"
            "try: os.ftruncate(fd, 2**20)\nexcept OSError: pass\nelse: raise SystemError"
        )
        assert run_python(program, SHORT).error == ""

    def test_there_is_no_memory_that_is_a_file(self):
        program = (
            "import ctypes, os\nfor call in (lambda: os.memfd_create('x'),):\n"
            "    try: call()\n    except PermissionError: continue\n    raise SystemError\n"
            "libc = ctypes.CDLL(None, use_errno=True)\n"
            "assert libc.shmget(0, 4096, 0o1600) == -1 and ctypes.get_errno() == 1"
        )
        assert run_python(program, SHORT).error == ""

    def test_shared_memory_counts_as_memory(self):
        program = "import mmap\nkept = []\nwhile True: kept.append(mmap.mmap(-1, 2**24))"
        assert "Cannot allocate memory" in run_python(program, SHORT).error


class TestThreads:
    def test_they_are_counted(self):
        program = (
            "import threading\nthreading.stack_size(2**16)\ngo, started = threading.Event(), 0\n"
            "try:\n"
            "    while True:\n        threading.Thread(target=go.wait).start()\n"
            "        started += 1\n"
            "except RuntimeError: pass\ngo.set()\n"
            f"assert started == {syscalls.MOST_THREADS}, started"
        )
        assert run_python(program, SHORT).error == ""

    def test_more_calls_than_are_answered_do_not_outlast_the_program(self):
        """The process that answers keeps its own time."""
        program = (
            "import os\nwhile True:\n"
            "    try: os.close(os.open('x', os.O_CREAT))\n    except OSError: pass"
        )
        quick = SandboxOptions(cpu_seconds=60, wall_seconds=0.5)
        assert run_python(program, quick).error == "stopped after 0.5 s"


@pytest.fixture
def forget():
    run._problem.cache_clear()
    yield
    run._problem.cache_clear()


def test_the_trial_notices_that_nothing_is_counted(monkeypatch, forget):
    nothing = b"\x06\0\0\0\0\0\xff\x7f"  # RETURN ALLOW
    monkeypatch.setattr(run, "counting_filter", lambda machine: nothing)
    with pytest.raises(SandboxError, match="many_files was possible"):
        require(SHORT)


def test_a_kernel_that_lets_nobody_listen(monkeypatch, forget):
    monkeypatch.setattr(run, "counting_filter", lambda machine: b"\xff" * 8)
    with pytest.raises(SandboxError, match="kernel takes no seccomp filter with a listener"):
        require(SHORT)


WAITS = """
import os, time
open("starting", "w").close()
os.rename("starting", "started")
while not os.path.exists("go"): time.sleep(0.01)
"""


@contextmanager
def waiting_program(folder, options):
    """A program that runs until it is told: its process, and what it came to."""
    outcomes, others = [], set(psutil.Process().children())  # those of other tests, or libraries
    thread = threading.Thread(target=lambda: outcomes.append(run_python(WAITS, options)))
    thread.start()
    try:
        started = wait_for(lambda: list(folder.glob("ebft-sandbox-*/started")))[0]
        [process] = set(psutil.Process().children()) - others
        yield process
        (started.parent / "go").touch()
    finally:
        thread.join()
    assert outcomes == [run.Outcome(True)]


class TestWhatTheKernelSaysOfIt:
    @pytest.fixture(params=["full", "limits"])
    def program(self, request, tmp_path, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        options = SHORT.model_copy(update={"isolation": request.param})
        require(options)  # the trial is another program
        with waiting_program(tmp_path, options) as process:
            yield request.param, process

    def test_it_has_what_it_was_given(self, program):
        isolation, process = program
        limits = {
            "CPU": SHORT.cpu_seconds,
            "AS": SHORT.memory_mib * MIB,
            "FSIZE": SHORT.scratch_mib * MIB // (syscalls.MOST_FILES if isolation == "full" else 1),
            "NOFILE": 64,
            "CORE": 0,
        } | ({"NPROC": 0} if isolation == "limits" else {})
        for name, most in limits.items():
            limit = getattr(resource, f"RLIMIT_{name}")
            assert resource.prlimit(process.pid, limit) == (most, most), name
        assert set(process.environ()) == {"PYTHONHASHSEED", "HOME", "TMPDIR"}
        assert {"-S", "-s", "-P", "-B"} <= set(process.cmdline())
        opened = Path(f"/proc/{process.pid}/fd").iterdir()
        files = {int(file.name): os.readlink(file) for file in opened}
        assert [files[number] for number in range(3)] == [os.devnull] * 3
        assert len(files) == 4, files
        assert files[max(files)].startswith("socket:")
        assert os.getsid(process.pid) == process.pid
        if isolation == "full":
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            status = dict(line.split(":\t") for line in lines if ":\t" in line)
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
            for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
                assert int(status[kind], 16) == 0, kind


def test_a_privilege_is_of_no_use():
    """Who is the superuser reads a file that nobody may; not here."""
    program = (
        "import os\nos.close(os.open('x', os.O_CREAT | os.O_WRONLY, 0))\n"
        "try: open('x')\nexcept PermissionError: pass\nelse: raise SystemError"
    )
    assert run_python(program, SHORT).error == ""


TRAINER = """
import sys
from ebft.sandbox import SandboxOptions, run_python
run_python({program!r}, SandboxOptions(isolation=sys.argv[1], wall_seconds=600))
"""


@BOTH
class TestATrainerThatCannotStopIt:
    def test_killed(self, tmp_path, isolation):
        command = [sys.executable, "-c", TRAINER.format(program=WAITS), isolation]
        environment = os.environ | {"TMPDIR": str(tmp_path)}
        with subprocess.Popen(command, env=environment) as trainer:
            try:
                wait_for(lambda: list(tmp_path.glob("ebft-sandbox-*/started")))
                [program] = psutil.Process(trainer.pid).children()
            finally:
                trainer.kill()
        try:
            wait_for(lambda: not is_running(program.pid))
        finally:
            with suppress(psutil.NoSuchProcess):
                program.kill()

    def test_suspended(self, isolation, monkeypatch):
        """It does not look at the clock, and the program ends by its own."""
        settings = run._settings
        monkeypatch.setattr(run, "_settings", lambda *given: settings(*given) | {"seconds": 1})
        options = SandboxOptions(isolation=isolation, wall_seconds=60)
        assert run._run(WAITS, options).error == "killed by SIGALRM"

    @pytest.mark.parametrize(("wall", "own"), [(0.5, 2), (20, 21), (1e30, 31536001)])
    def test_its_own_clock_is_the_later_one(self, isolation, wall, own):
        options = SandboxOptions(isolation=isolation, wall_seconds=wall)
        assert run._settings("", "/tmp", options)["seconds"] == own

    def test_gone_before_the_program_began(self, isolation, monkeypatch):
        settings = run._settings
        monkeypatch.setattr(run, "_settings", lambda *given: settings(*given) | {"parent": 1})
        assert run._run("", SandboxOptions(isolation=isolation)).error == (
            "left before its end, with status 1"
        )


def test_what_was_reported_in_time_counts(monkeypatch):
    """A process that was suspended meanwhile looks late."""
    clock = iter([0.0])
    monkeypatch.setattr(run, "time", SimpleNamespace(monotonic=lambda: next(clock, 10.0**6)))
    ours, theirs = run.socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"passed")
        assert run._receive(ours, SHORT) == b"passed"


@pytest.mark.parametrize("number", [signal.SIGRTMIN + 5, signal.SIGRTMAX - 1, signal.SIGRTMAX])
def test_any_signal_has_a_name(number):
    program = f"import os\nos.kill(os.getpid(), {int(number)})"
    error = run_python(program, SandboxOptions(isolation="limits")).error
    name = "SIGRTMAX" if number == signal.SIGRTMAX else f"signal {number}"
    assert error == f"killed by {name}"


class TestLimitsAlone:
    LIMITS = SandboxOptions(isolation="limits", cpu_seconds=1, wall_seconds=120)

    def test_time_and_memory_are_limited(self):
        assert "MemoryError" in run_python("x = bytearray(10 * 2**30)", self.LIMITS).error
        assert "CPU" in run_python("while True: pass", self.LIMITS).error

    @pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser's processes are not counted")
    def test_its_children_end_with_it(self, tmp_path):
        file = tmp_path / "pid"
        program = (
            "import os, time\n"
            f"if os.fork() == 0:\n    open({str(file)!r}, 'w').write(str(os.getpid()))\n"
            "    time.sleep(60)\nwhile True: time.sleep(0.1)"
        )
        quick = SandboxOptions(isolation="limits", wall_seconds=2)
        assert not run_python(program, quick).passed
        child, deadline = int(file.read_text()), time.monotonic() + 10
        while is_running(child):  # killed, but a busy machine takes its time
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def test_a_descriptor_from_it_is_nothing_to_answer_on(self):
        program = (
            "import os, socket\nfor fd in range(3, 64):\n"
            "    try: socket.send_fds(socket.socket(fileno=fd), [b'x'], [0])\n"
            "    except OSError: pass\nos._exit(0)"
        )
        assert "left before its end" in run_python(program, self.LIMITS).error
