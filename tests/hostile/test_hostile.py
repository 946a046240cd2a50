"""Hostile inputs, through the command line: one line that names the key, and no traceback.

A case is added in one line: to `CASES` in `data.py`, `models.py`, `parts.py` or `states.py`.
"""

import signal

import pytest

from tests.hostile import data, models, parts, states
from tests.hostile.case import Inputs

CASES = [*data.CASES, *models.CASES, *parts.CASES, *states.CASES]
LONGEST = 1000
"""Characters of a line: a value is quoted in part, however long it is."""


PATIENCE = 60
"""Seconds: a pipe or a device that is opened may never end."""


@pytest.fixture(autouse=True)
def ends():
    before = signal.signal(signal.SIGALRM, _raise)
    signal.alarm(PATIENCE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _raise(number, frame):
    pytest.fail(f"not refused within {PATIENCE} seconds")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_a_hostile_input_is_refused_with_one_line(
    case, ebft, tiny_run, tiny_model, python_folder, tmp_path
):
    (tmp_path / "input").mkdir()
    words = case.make(Inputs(tmp_path / "input", tiny_model, python_folder))
    status, out, err = ebft(*(words if case.whole else tiny_run(*words, recipe=case.recipe)))
    assert status == case.status, (out, err)
    assert "Traceback" not in err
    line = err.rstrip("\n").rpartition("\n")[2]
    assert case.says in line
    assert len(line) <= LONGEST
    assert all(letter.isprintable() for letter in line), ascii(line)
    assert not (tmp_path / "run" / "recipe.yaml").exists()
