"""A terminal that is closed asks a run to stop, as SIGTERM does."""

import os
import signal

import pytest

from ebft.runs.signals import stop_child_on_signals, stop_on_signals

WAYS = {
    "one": lambda: stop_on_signals(grace=60, at_rest=lambda: True),
    "another": lambda: stop_child_on_signals("stopping the other"),
}


@pytest.fixture(autouse=True)
def as_before():
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("way", WAYS)
def test_a_closed_terminal_counts_as_sigterm(way, caplog):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with WAYS[way]() as stop:
        assert callable(signal.getsignal(signal.SIGHUP))  # the default would end this process
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.signal is signal.SIGTERM
    assert "SIGHUP: stopping" in caplog.text
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


@pytest.mark.parametrize("way", WAYS)
def test_with_nohup_it_goes_on(way):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with WAYS[way]() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
