"""What lies in a study's folder, read back."""

import pytest

from ebft.errors import UserError
from ebft.study.folder import RunFolder


def test_a_result_is_read_back(tmp_path):
    run = RunFolder(tmp_path)
    assert run.result() is None
    run.write_result("done", seconds=1.5)
    assert run.result() == {"status": "done", "seconds": 1.5}


@pytest.mark.parametrize("content", [b"", b'{"status": "do', b"\xff{}", b"[]"])
def test_a_damaged_one_is_named(tmp_path, content):
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(UserError) as raised:
        RunFolder(tmp_path).result()
    assert str(raised.value).startswith(f"{tmp_path / 'result.json'} is damaged: ")
    assert "delete it, and the study's own command makes it again" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_report_of_a_damaged_study_is_one_clear_line(ebft, tmp_path):
    (tmp_path / "plan.json").write_text('{"title": ')
    status, _, err = ebft("report", str(tmp_path))
    assert status == 2
    assert err.startswith(f"{tmp_path / 'plan.json'} is damaged: ")
    assert "Traceback" not in err
