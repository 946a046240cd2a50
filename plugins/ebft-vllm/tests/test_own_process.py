"""The engine's process and the trainer, when one hangs or dies. vLLM itself is not needed."""

import os
import signal
import subprocess
import sys
import threading

import psutil
import pytest
from ebft_vllm.messages import Start
from ebft_vllm.own_process import OwnProcessEngine

from ebft.distributed import helper_process
from ebft.errors import EngineError


def start(**options):
    return Start("model", "float32", None, 1, 1, options)


def test_one_that_reads_nothing_is_ended_in_time(monkeypatch):
    spawn = helper_process._spawn

    def stopped(command, environment):
        process, connection = spawn(command, environment)
        os.kill(process.pid, signal.SIGSTOP)
        timer = threading.Timer(20, process.kill)
        timer.daemon = True
        timer.start()
        return process, connection

    monkeypatch.setattr(helper_process, "_spawn", stopped)
    more_than_a_socket_holds = start(text="x" * 10**7)
    with pytest.raises(EngineError, match=r"did not answer `start` within 0.5 s .*start_timeout"):
        OwnProcessEngine(more_than_a_socket_holds, devices=None, start_timeout=0.5, timeout=1)


def test_files_in_the_working_directory_are_not_taken_for_libraries(tmp_path, monkeypatch):
    (tmp_path / "ebft_vllm.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineError, match="failed at `start`"):  # there is no such model
        OwnProcessEngine(start(), devices=None, start_timeout=300, timeout=1)


HANGS = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)"
TRAINER = """
from ebft_vllm.messages import Start
from ebft_vllm.own_process import OwnProcessEngine

start = Start("model", "float32", None, 1, 1, {})
OwnProcessEngine(start, devices=None, start_timeout=600, timeout=600)
"""


def test_one_that_hangs_ends_with_the_trainer(tmp_path):
    (tmp_path / "vllm.py").write_text(HANGS)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        [sys.executable, "-c", TRAINER], env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE, text=True,
    ) as trainer:  # fmt: skip
        engine = psutil.Process(
            int(next(line for line in trainer.stderr if line.strip().isdigit()))
        )
        trainer.kill()
        trainer.wait()
        try:
            engine.wait(timeout=30)
        except psutil.TimeoutExpired:
            engine.kill()
            raise
