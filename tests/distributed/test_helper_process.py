"""A helper and its parent, when one hangs, dies or fails."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from ebft.distributed.helper_process import HelperProcess
from ebft.errors import EngineError

HELPER = """
import os, signal, sys, time
from multiprocessing.connection import Connection

connection = Connection(int(sys.argv[1]))
while True:
    try:
        name, arguments = connection.recv()
    except EOFError:
        sys.exit()
    if name == "add":
        connection.send(("done", sum(arguments)))
    elif name == "variable":
        connection.send(("done", os.environ.get(arguments[0])))
    elif name == "parent":
        connection.send(("done", int(sys.argv[2])))
    elif name == "fail":
        connection.send(("failed", "no such thing", "a traceback"))
    elif name == "leave":
        sys.exit(arguments[0])
    elif name == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        time.sleep(600)
"""
OPTIONS = {"timeout": 60, "option": "x.timeout"}


@pytest.fixture
def helper():
    process = HelperProcess(
        [sys.executable, "-c", HELPER], what="the helper", environment={"COLOUR": "green"}
    )
    yield process
    process.close()


def test_it_answers_requests_in_its_environment(helper):
    assert helper.ask("add", 1, 2, **OPTIONS) == 3
    assert helper.ask("variable", "COLOUR", **OPTIONS) == "green"
    assert helper.ask("variable", "PATH", **OPTIONS) == os.environ["PATH"]
    assert helper.ask("parent", **OPTIONS) == os.getpid()


def test_a_failure_is_an_error_after_which_it_still_answers(helper):
    with pytest.raises(EngineError, match="the helper failed at `fail`: no such thing"):
        helper.ask("fail", **OPTIONS)
    assert helper.ask("add", 1, **OPTIONS) == 1


@pytest.mark.parametrize(
    ("request_of_it", "says"),
    [
        (("leave", 3), "the helper exited with status 3 during `leave`"),
        (("die",), "the helper was killed by signal 9 during `die`"),
    ],
)
def test_one_that_ends_says_how(helper, request_of_it, says):
    with pytest.raises(EngineError, match=says):
        helper.ask(*request_of_it, **OPTIONS)


@pytest.mark.parametrize("stopped", [False, True])
def test_one_that_hangs_is_ended_in_time(helper, stopped):
    """Also one that reads nothing, and a request that is larger than what a socket holds."""
    if stopped:
        os.kill(helper.pid, signal.SIGSTOP)
    process = psutil.Process(helper.pid)
    with pytest.raises(EngineError, match=r"within 0\.5 s and was ended; .* raise x\.timeout"):
        helper.ask("hang", "x" * 10**7, timeout=0.5, option="x.timeout")
    assert not process.is_running()


def test_it_ends_with_the_object():
    helper = HelperProcess([sys.executable, "-c", HELPER], what="the helper")
    process = psutil.Process(helper.pid)
    del helper
    assert not process.is_running()


def test_files_in_the_working_directory_are_not_taken_for_libraries(tmp_path, monkeypatch):
    (tmp_path / "multiprocessing.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    helper = HelperProcess([sys.executable, "-c", HELPER], what="the helper")
    assert helper.ask("add", 1, **OPTIONS) == 1
    helper.close()


def test_importing_it_does_not_import_torch():
    program = "import sys, ebft.distributed.helper_process; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
