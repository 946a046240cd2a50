"""What is shown of a step while it is in progress, on a terminal and in a log file."""

import io
import logging
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from ebft.models import forward
from ebft.models.options import ModelOptions
from ebft.runs import progress
from ebft.runs.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now.seconds)
    return now


def shown(stream, monkeypatch, steps=3):
    monkeypatch.setattr("sys.stderr", stream)
    return Progress(steps=steps, label="ebft", loggers=[], tokenizer=None, show_rollouts_every=None)


def step(done):
    return SimpleNamespace(done=done, number=done - 1, scored=None)


def test_on_a_terminal_the_bar_says_where_in_its_step_a_run_is(clock, monkeypatch):
    terminal = Terminal()
    bar = shown(terminal, monkeypatch)
    clock.seconds += 1
    bar.announce("training 2/16")
    assert "ebft, training 2/16: " in terminal.getvalue()
    clock.seconds += progress.REDRAW / 2
    bar.announce("training 3/16")
    assert "training 3/16" not in terminal.getvalue(), "short steps do not flicker"
    bar.step(step(1), {"ce": 1.0})
    assert terminal.getvalue().rsplit("\r", 1)[-1].startswith("ebft: "), "the step is done"


def test_a_log_file_has_a_line_when_a_step_takes_long(clock, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("ebft"), "propagate", True)
    caplog.set_level(logging.INFO, logger="ebft")
    bar = shown(io.StringIO(), monkeypatch)
    bar.start_at(1)
    bar.announce("sampling")
    assert not caplog.messages
    clock.seconds += progress.LOG_WITHIN
    bar.announce("training 2/16")
    bar.announce("training 3/16")
    assert caplog.messages == ["ebft: step 2 of 3: training 2/16"]
    bar.step(step(2), {"ce": 1.0})
    assert caplog.messages[1:] == ["ebft: step 2 of 3  CE 1.000"], "the first step is always said"


@pytest.mark.parametrize(
    ("precision", "device", "warned"),
    [("bfloat16", "cpu", True), ("bfloat16", "cuda", False), ("float32", "cpu", False)],
)
def test_a_precision_that_is_slower_on_this_cpu_is_said(
    precision, device, warned, caplog, monkeypatch
):
    """A product in bfloat16 takes 3 s here, in float32 1 s."""
    ticks = iter([0, 3, 0, 1])
    monkeypatch.setattr(progress, "slowdown", partial(forward.slowdown, size=8, tries=1))
    monkeypatch.setattr(forward, "perf_counter", lambda: next(ticks))
    resources = SimpleNamespace(
        policy=torch.nn.Linear(2, 2), device=torch.device(device),
        precision=getattr(torch, precision),
    )  # fmt: skip
    model = ModelOptions(path="any", precision=precision)
    progress.log_model("EBFT", model, resources)
    said = "model.precision = bfloat16: this CPU takes 3.0 times as long"
    assert (said in caplog.text) is warned
