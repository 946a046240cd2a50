import os

import pytest

from ebft.data.python_files import PythonFiles
from ebft.data.python_functions import documented_functions
from ebft.errors import UserError
from ebft.splits import Example


class TestPythonFiles:
    def test_the_standard_library_by_default(self):
        splits = PythonFiles(held_out=0.1)()
        names = {e.name for e in [*splits.train, *splits.held_out]}
        assert {"argparse.py", "json/decoder.py"} <= names
        assert not any("site-packages" in n or n.startswith("test/") for n in names)

    def test_a_folder(self, tmp_path):
        (tmp_path / "pkg").mkdir()
        for name in ("a.py", "b.py", "pkg/c.py"):
            (tmp_path / name).write_text(f"# {name}\n")
        (tmp_path / "empty.py").write_text("\n")
        (tmp_path / "latin.py").write_bytes("é = 1".encode("latin-1"))
        (tmp_path / "notes.txt").write_text("not code")
        splits = PythonFiles(path=tmp_path, held_out=0.3)()
        assert sorted(e.name for e in [*splits.train, *splits.held_out]) == [
            "a.py", "b.py", "pkg/c.py",
        ]  # fmt: skip
        assert len(splits.held_out) == 1

    def test_a_name_that_is_not_utf_8_and_a_file_that_never_ends(self, tmp_path):
        for name in (b"a.py", b"caf\xe9.py", b"\xff/b.py"):
            file = tmp_path / os.fsdecode(name)
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"x = {name!r}\n")
        os.mkfifo(tmp_path / "pipe.py")
        splits = PythonFiles(path=tmp_path)()
        names = {e.name for e in [*splits.train, *splits.held_out]}
        assert names == {"a.py", r"caf\xe9.py", r"\xff/b.py"}

    def test_no_such_folder(self, tmp_path):
        with pytest.raises(UserError, match=r"data.path = .*nowhere: no such folder"):
            PythonFiles(path=tmp_path / "nowhere")()

    def test_no_python_in_it(self, tmp_path):
        with pytest.raises(UserError, match=r"data.path = .*: no .py file"):
            PythonFiles(path=tmp_path)()


@pytest.mark.parametrize("before", ["\x0c\n", 'X = "a\u2028b"\n', "# \x85\x1c\n", "\r\n"])
def test_functions_are_cut_where_python_sees_lines(before):
    source = f'import os\n{before}def f(x):\n    """Doc."""\n    y = x + 1\n    return y\n'
    (found,) = documented_functions(Example("a.py", source))
    assert found.prompt == 'def f(x):\n    """Doc."""\n'
    assert found.completion == "    y = x + 1\n    return y\n"


@pytest.mark.parametrize("table", ["+".join("1" * 9999), "-" * 9999 + "1", "a" + ".b" * 9999])
def test_code_nested_too_deeply_for_the_parser_has_no_functions(table):
    source = f'def f(x):\n    """Doc."""\n    y = x + 1\n    return y\n\n\nx = {table}\n'
    assert list(documented_functions(Example("a.py", source))) == []


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.py").write_text(f"{name} = 1\n", encoding="utf-8-sig")
    splits = PythonFiles(path=tmp_path)()
    assert all(e.completion[1:] == " = 1\n" for e in (*splits.train, *splits.held_out))
