"""Checks that tell nothing of a program."""

import pytest

from ebft.errors import UserError
from ebft.sandbox import SandboxOptions
from ebft.verifiers.attempts import Attempt
from ebft.verifiers.functions import unit_tests

RIGHT = "def f(): return 1"


def says(check, document, program=RIGHT):
    return unit_tests(Attempt("", program, "", check, document), SandboxOptions())


@pytest.mark.parametrize(
    ("check", "why"),
    [
        ("def test_f(g): assert g() == 1", "passes a program whose functions are empty"),
        ("import pytest\nassert f() == 1", "cannot run (No module named 'pytest')"),
    ],
)
def test_no_program_passes_it_and_the_log_says_so_once(check, why, caplog):
    assert [says(check, f"rows.jsonl:{i}") for i in (1, 1, 2)] == [0, 0, 0]
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert lines[0].startswith(f"the check of document rows.jsonl:1 {why}")


@pytest.mark.parametrize("program", ["{}", "def f():\n    {}"])
def test_a_program_does_not_say_that_its_check_cannot_run(program, caplog):
    error = "raise type('UnusableCheck', (Exception,), {})('it is wrong')"
    assert says("assert f() == 1", "rows.jsonl:7", program.format(error)) == 0
    assert not caplog.records


@pytest.mark.parametrize("check", ["", "\n", "# no test\n\n  # nor here"])
def test_a_check_without_code_is_none(check):
    with pytest.raises(UserError, match=r"document rows\.jsonl:3 has no check; name the column"):
        says(check, "rows.jsonl:3")


def test_a_check_is_tried_once_for_all_that_pass_it(monkeypatch):
    tried = []
    monkeypatch.setattr(
        "ebft.verifiers.functions.run_without_program",
        lambda check, options: tried.append(check) or run_without_program(check, options),
    )
    from ebft.sandbox import run_without_program

    check = "assert f() == 1  # tried once"
    assert [says(check, "d"), says(check, "d"), says(check, "d", "def f(): return 2")] == [1, 1, 0]
    assert len(tried) == 1
