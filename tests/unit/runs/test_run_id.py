"""The id under which metric loggers know a run."""

import re

import pytest

from ebft.errors import UserError
from ebft.runs.folder import LockedFolder


@pytest.fixture
def folder(tmp_path):
    return LockedFolder(tmp_path, overwrite=False)


def test_a_resumed_run_keeps_it_and_a_new_one_does_not(folder, tmp_path):
    first = folder.choose_id(resume=True)
    assert re.fullmatch("[0-9a-f]{12}", first)
    folder.take("seed: 0\n", run_id=first)
    assert (tmp_path / "run_id").read_text() == f"{first}\n"
    assert folder.choose_id(resume=True) == first
    assert folder.choose_id(resume=False) != first


def test_the_id_of_a_run_that_was_logged_before_can_be_given(folder, tmp_path):
    (tmp_path / "run_id").write_text("my_run-2")
    assert folder.choose_id(resume=True) == "my_run-2"


@pytest.mark.parametrize("content", [b"", b"two words", b"a\nb", b"\xff", b"x" * 65, "ä".encode()])
def test_what_is_no_id(folder, tmp_path, content):
    (tmp_path / "run_id").write_bytes(content)
    with pytest.raises(UserError, match=r"run_id is damaged: it has no id of .*; delete it: "):
        folder.choose_id(resume=True)


def test_a_folder_with_an_id_alone_has_no_run(folder):
    folder.take("seed: 0\n", run_id="abc")
    folder.check()
