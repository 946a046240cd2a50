"""Streams whose reader is gone, or that have no letter for a text: a run goes on."""

import logging
import os
import subprocess
import sys

import pytest

from ebft.console import BesideBars


@pytest.fixture
def unread():
    """A stream that nobody reads any more."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", buffering=1) as stream:
        yield stream


def test_a_message_that_nobody_reads_is_none_the_less_logged(unread):
    handler = BesideBars(unread)
    for _ in range(2):
        handler.emit(logging.makeLogRecord({"msg": "step 1"}))
    unread.flush()  # Python does so on its way out


def test_a_message_that_cannot_be_put_together_is_logging_s_affair(capsys):
    BesideBars(sys.stderr).emit(logging.makeLogRecord({"msg": "%d", "args": ("x",)}))
    assert "--- Logging error ---" in capsys.readouterr().err


SHOW = """
import sys
from ebft.console import prepare_process
from ebft.console import show
prepare_process(sys.stderr)
for step in range(2):
    show("π é " * 9999)
"""


def test_showing_to_nobody(unread):
    done = subprocess.run(
        [sys.executable, "-c", SHOW], stdout=unread, stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stderr == ("standard output: Broken pipe; the run continues without output\n")


def test_showing_letters_that_a_terminal_lacks():
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(
        [sys.executable, "-c", SHOW], env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert rb"\u03c0" in done.stdout
    assert "é".encode("latin-1") in done.stdout
