import gzip
import json

import pytest

from ebft.data.files import Files
from ebft.data.python_files import PythonFiles
from ebft.data.python_functions import documented_functions
from ebft.errors import UserError
from ebft.parts.splits import Example

ROWS = [{"question": f"q{i}", "answer": f"a{i}"} for i in range(10)]
DEEP = "[" * 10**5 + "]" * 10**5


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


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

    def test_no_such_folder(self, tmp_path):
        with pytest.raises(UserError, match=r"data.path = .*nowhere: no such folder"):
            PythonFiles(path=tmp_path / "nowhere")()

    def test_no_python_in_it(self, tmp_path):
        with pytest.raises(UserError, match=r"data.path = .*: no .py file"):
            PythonFiles(path=tmp_path)()


class TestFiles:
    @pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet", ".csv"])
    def test_formats(self, tmp_path, suffix):
        path = write_lines(tmp_path / "rows.jsonl", ROWS)
        if suffix == ".jsonl.gz":
            with gzip.open(tmp_path / "rows.jsonl.gz", "wb") as out:
                out.write(path.read_bytes())
        elif suffix != ".jsonl":
            import pandas

            frame = pandas.DataFrame(ROWS)
            write = frame.to_parquet if suffix == ".parquet" else frame.to_csv
            write(tmp_path / f"rows{suffix}", index=False)
        source = Files(path=tmp_path / f"rows{suffix}", prompt="question", completion="answer")
        splits = source()
        found = [(e.prompt, e.completion) for e in [*splits.train, *splits.held_out]]
        assert sorted(found) == [(f"q{i}", f"a{i}") for i in range(10)]
        assert len(splits.held_out) == 1

    def test_held_out_file_and_no_leak(self, tmp_path):
        train = write_lines(tmp_path / "train.jsonl", ROWS)
        held_out = write_lines(tmp_path / "test.jsonl", ROWS[:3])
        splits = Files(path=train, completion="answer", held_out_path=held_out)()
        assert [e.completion for e in splits.held_out] == ["a0", "a1", "a2"]
        assert [e.completion for e in splits.train] == [f"a{i}" for i in range(3, 10)]

    def test_no_prompt_is_in_both_where_the_held_out_file_is_given(self, tmp_path):
        rows = [{"q": f"q{i}", "a": f"a{i}{j}"} for i in range(4) for j in range(2)]
        train = write_lines(tmp_path / "train.jsonl", rows)
        other = [{"q": f"q{i}", "a": "another answer"} for i in (1, 3)]
        held_out = write_lines(tmp_path / "test.jsonl", other)
        both = {"prompt": "q", "completion": "a", "held_out_path": held_out}
        splits = Files(path=train, **both)()
        assert [e.completion for e in splits.train] == ["a00", "a01", "a20", "a21"]
        # The same prompt everywhere says nothing.
        one = write_lines(tmp_path / "one.jsonl", [{**row, "q": "q"} for row in rows])
        same = write_lines(tmp_path / "same.jsonl", [{"q": "q", "a": f"b{i}"} for i in range(2)])
        assert len(Files(path=one, **both | {"held_out_path": same})().train) == 8
        with pytest.raises(UserError, match="all of its texts or prompts are among those held out"):
            Files(path=held_out, **both)()

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("gone.jsonl", None, r"data.path = .*gone.jsonl: no such file"),
            ("", None, r"is a folder, and this reads one file; for a folder of .py files set"),
            ("empty.jsonl", "", r"data.path = .*empty.jsonl: the file is empty"),
            ("bad.jsonl", '{"answer": "x"}\n{"answer": \n', r"bad.jsonl: .*line 2 is not JSON"),
            ("list.jsonl", "[1, 2]\n", r"list.jsonl: cannot be read: line 1 is not a JSON object"),
            ("null.json", "null", r"null.json: cannot be read: it is no list of JSON objects"),
            ("none.json", "[]", r"none.json: cannot be read: it has no rows"),
            ("cut.json", '[{"answer": "x"}', r"cut.json: cannot be read: line 1 is not JSON"),
            ("rows.txt", "x", r"rows.txt: ends in none of .jsonl"),
            ("other.jsonl", '{"text": "x"}\n', r"data.completion = answer: .*row 1.*are: text"),
            ("null.jsonl", '{"answer": "x"}\n{"answer": null}\n', r"row 2 has None there"),
            ("one.jsonl", '{"answer": "x"}\n', r"1 different texts"),
        ],
    )
    def test_bad_files(self, tmp_path, name, content, message):
        path = tmp_path / name
        if content is not None:
            path.write_text(content)
        with pytest.raises(UserError, match=message):
            Files(path=path, completion="answer")()

    @pytest.mark.parametrize(("before", "line"), [("", 1), ('{"answer": "x"}\n', 2)])
    def test_a_line_that_is_nested_too_deeply(self, tmp_path, before, line):
        path = tmp_path / "deep.jsonl"
        path.write_text(before + f'{{"answer": {DEEP}}}\n')
        with pytest.raises(UserError, match=f"deep.jsonl: .*line {line} is nested too deeply"):
            Files(path=path, completion="answer")()

    def test_a_compressed_file_of_nothing(self, tmp_path):
        path = tmp_path / "rows.jsonl.gz"
        path.write_bytes(gzip.compress(b""))
        with pytest.raises(UserError, match=r"rows.jsonl.gz: (cannot be|the file has no)"):
            Files(path=path, completion="answer")()

    def test_words_that_pandas_takes_for_nothing_are_texts(self, tmp_path):
        path = tmp_path / "rows.csv"
        path.write_text("question,answer\nSodium?,Na\nNot available?,NA\nNothing?,null\n")
        splits = Files(path=path, prompt="question", completion="answer")()
        assert {e.completion for e in (*splits.train, *splits.held_out)} == {"Na", "NA", "null"}

    def test_a_compressed_file_that_is_cut_off(self, tmp_path):
        path = tmp_path / "rows.jsonl.gz"
        whole = gzip.compress(b'{"answer": "x"}\n{"answer": "y"}\n')
        path.write_bytes(whole[:-3])
        with pytest.raises(UserError, match=r"rows.jsonl.gz: cannot be read: .*end-of-stream"):
            Files(path=path, completion="answer")()


@pytest.mark.parametrize("before", ["\x0c\n", 'X = "a\u2028b"\n', "# \x85\x1c\n", "\r\n"])
def test_functions_are_cut_where_python_sees_lines(before):
    source = f'import os\n{before}def f(x):\n    """Doc."""\n    y = x + 1\n    return y\n'
    (found,) = documented_functions(Example("a.py", source))
    assert found.prompt == 'def f(x):\n    """Doc."""\n'
    assert found.completion == "    y = x + 1\n    return y\n"


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.py").write_text(f"{name} = 1\n", encoding="utf-8-sig")
    splits = PythonFiles(path=tmp_path)()
    assert all(e.completion[1:] == " = 1\n" for e in (*splits.train, *splits.held_out))
