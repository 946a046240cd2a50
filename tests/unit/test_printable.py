"""Whatever is quoted: nothing reaches a terminal but letters, and a line is a line."""

import io
import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from ebft.console import Bar, BesideBars, Printer, say
from ebft.errors import LONGEST, EngineError, NumericalError, SamplerMismatchError, UserError
from ebft.printable import printable

HOSTILE = "\x1b]0;title\x07 \x9b31m \r[layer 8] [/x] :warning: \u202egnp\ud800\n2"
SHOWN = (
    r"\x1b]0;title\x07 \x9b31m \r[layer 8] [/x] :warning: \u202egnp\ud800\n2"
)  # fmt: skip


@given(st.text())
def test_every_letter_is_shown_and_none_is_obeyed(text):
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    shown.encode()


def test_an_error_has_the_lines_that_it_is_given():
    error = UserError(f"a = {HOSTILE}", "b")
    assert str(error) == f"a = {SHOWN}\nb"
    long = str(UserError(f"key = {'x' * 10**6}: do this"))
    assert len(long) == LONGEST
    assert long.startswith("key = x")
    assert long.endswith("x: do this")


@pytest.mark.parametrize("kind", [EngineError, NumericalError, SamplerMismatchError])
def test_every_error_that_is_shown_whole_is_printable(kind):
    assert str(kind(HOSTILE)) == SHOWN


def test_what_is_said(capsys):
    say(HOSTILE, "b")
    assert capsys.readouterr().out == f"{SHOWN}\nb\n"


def test_a_message_of_the_log_is_a_line(capsys):
    log = logging.Logger("one")
    log.addHandler(BesideBars(sys.stderr))
    log.warning("label %s", HOSTILE)
    assert capsys.readouterr().err == f"label {SHOWN}\n"
    try:
        raise RuntimeError("\x1b[31m")
    except RuntimeError:
        log.exception("failed")
    err = capsys.readouterr().err
    assert err.startswith("failed\nTraceback")
    assert err.endswith("RuntimeError: \\x1b[31m\n")


def test_a_bar():
    stream = io.StringIO()
    with Bar(total=1, desc="a\x1b[31m", file=stream, ncols=60) as bar:
        bar.set_postfix_str("b\x9b31m")
        assert r"a\x1b[31m" in str(bar)
        assert r"b\x9b31m" in str(bar)
    assert "\x1b[31m" not in stream.getvalue()


def test_nothing_in_a_table_is_markup(capsys):
    hostile = HOSTILE.replace("\n", "")
    table = Table(title=hostile, caption=hostile)
    table.add_column(hostile)
    table.add_row(hostile)
    table.add_row(Text("a\x1b[35m"))
    Printer().print(table, width=200)
    printed = capsys.readouterr().out
    assert printed.count(SHOWN.replace(r"\n", "")) == 4
    assert r"a\x1b[35m" in printed
    assert printed.replace("\n", "").isprintable()


def test_arguments_that_are_none(ebft):
    status, _, err = ebft("run", "x.yaml", "--\x1b[31m")
    assert status == 2
    assert "\\x1b[31m" in err
    assert "\x1b" not in err
