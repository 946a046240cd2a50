"""`metrics.jsonl`: what is written is read back, and resume cuts what will be logged again."""

import json
import os
from math import inf, nan

import pytest
import torch

from ebft.errors import UserError
from ebft.runs.metrics_log import MetricsLog, cut_metrics, read_metrics


@pytest.fixture
def file(tmp_path):
    return tmp_path / "metrics.jsonl"


def test_what_is_logged_is_read_back_at_once(file):
    log = MetricsLog(file)
    log.log_dict({"ce": 1 / 3, "rollout_tokens": torch.tensor(7)}, step=1)
    log.log_dict({"held-out CE": 2.5}, step=1)
    assert file.read_text() == (
        '{"step": 1, "ce": 0.3333333333333333, "rollout_tokens": 7.0}\n'
        '{"step": 1, "held-out CE": 2.5}\n'
    )
    assert [(line.step, line.figures) for line in read_metrics(file)] == [
        (1, {"ce": 1 / 3, "rollout_tokens": 7.0}), (1, {"held-out CE": 2.5}),
    ]  # fmt: skip


@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_what_json_has_no_word_for_is_null(file, value):
    MetricsLog(file).log_dict({"ce": value, "cfm": 1}, step=2)
    json.loads(file.read_text(), parse_constant=pytest.fail)
    assert [line.figures for line in read_metrics(file)] == [{"cfm": 1}]


def test_what_was_logged_beyond_the_step_is_cut(file):
    kept = '{"step": 0, "ce": NaN}\n{"step": 2, "ce": 1}\n{"step": 2,"held-out CE": 3}\n'
    file.write_text(kept + '{"step": 3, "ce": 1.5}\n{"step": 2, "c')
    cut_metrics(file, after=2)
    assert file.read_text() == kept
    cut_metrics(file, after=0)
    assert file.read_text() == '{"step": 0, "ce": NaN}\n'


def test_where_nothing_was_logged_nothing_is_cut(file):
    cut_metrics(file, after=2)
    assert not file.exists()
    assert read_metrics(file) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"step": 1}\n{"ce": 1}\n', "line 2: step is missing"),
        (b'{"step": 1, "ce": "low"}\n', "line 1: ce = 'low': it must be"),
        (b'{"step": 1.5}\n', "line 1: step = 1.5: it must be"),
        (b"\xff\n", "'utf-8' codec"),
    ],
)
def test_a_damaged_one_is_refused_and_left_as_it_is(file, content, says):
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged: .*; delete it") as raised:
        cut_metrics(file, after=0)
    assert says in str(raised.value)
    assert file.read_bytes() == content


def test_a_pipe_is_not_read(file):
    os.mkfifo(file)
    with pytest.raises(UserError, match="a pipe"):
        read_metrics(file)
