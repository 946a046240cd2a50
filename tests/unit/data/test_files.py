"""Source `files`: which file a path names, and which texts stand in it."""

import csv
import gzip
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebft.data.files import Files
from ebft.errors import UserError

# What readers have taken for numbers, dates, nothing, or marks of their own.
GUESSED = ["00700", "1.10", "True", "1e3", "+5", "NA", "null", "", " ", "2020-01-01", "\ufeffx",
           "2020-01-01T10:00:00Z", 'a "b"', "\r\n", "\\", "\x00", "a,b", "\u2028"]  # fmt: skip
ANY_TEXT = st.sampled_from(GUESSED) | st.text(max_size=20)


def write_csv(folder, texts):
    path = folder / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["q", "a", "n"], *([q, a, 1] for q, a in texts)])
    return path


def write_parquet(folder, texts):
    path = folder / "rows.parquet"
    q, a = zip(*texts, strict=True)
    pq.write_table(
        pa.table({"n": [1] * len(q), "q": q, "a": pa.array(a).dictionary_encode()}), path
    )
    return path


def write_gz(folder, texts):
    path = folder / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(WRITERS["jsonl"](folder, texts).read_bytes()))
    return path


def write_list(folder, texts):
    path = folder / "rows.json"
    path.write_text(json.dumps([{"q": q, "a": a} for q, a in texts], indent=1))
    return path


WRITERS = {
    "jsonl": lambda folder, texts: write_lines(
        folder / "rows.jsonl", [{"q": q, "n": 1, "a": a} for q, a in texts]
    ),
    "jsonl.gz": write_gz,
    "json": write_list,
    "csv": write_csv,
    "parquet": write_parquet,
}


def read(path, prompt="q", completion="a"):
    """Every row's prompt and completion, in order."""
    source = Files(path=path, prompt=prompt, completion=completion)
    return [(e.prompt, e.completion) for e in source._read(path, "data.path")]


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    """Where texts are kept, instead of the user's folder."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", folder)
        yield folder


ROWS = [{"question": f"q{i}", "answer": f"a{i}"} for i in range(10)]
DEEP = "[" * 10**5 + "]" * 10**5


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


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
        copy = write_lines(tmp_path / "copy.jsonl", other)
        with pytest.raises(UserError, match="all of its texts or prompts are among those held out"):
            Files(path=copy, **both)()

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("gone.jsonl", None, r"data.path = .*gone.jsonl: no such file"),
            ("", None, r"is a folder, and this reads one file; for a folder of .py files set"),
            ("list.jsonl", "[1, 2]\n", r"list.jsonl: line 1 is not a JSON object: \[1, 2\]"),
            ("null.json", "null", r"null.json: item 1 is not a JSON object: None"),
            ("none.json", "[]", r"none.json: the file has no rows"),
            ("cut.json", '[{"answer":\n "x"}', r"cut.json: line 2 is not JSON"),
            ("rows.txt", "x", r"rows.txt: ends in none of .jsonl"),
            ("other.jsonl", '{"text": "x"}\n', r"data.completion = answer: .*row 1.*are: text"),
            ("null.jsonl", '{"answer": "x"}\n{"answer": null}\n', r"row 2 has None there"),
            ("true.json", '[{"answer": "x"}, {"answer": true}]', r"row 2 has True there"),
            (
                "one.jsonl",
                '{"answer": "x"}\n',
                r"has only one text, apart from copies; at least 2 are needed",
            ),
            ("half.jsonl", '{"answer": "\\ud83d"}\n', r"row 1 has half a surrogate pair"),
            ("twice.jsonl", '{"answer": "x", "answer": "y"}\n', r"row 1 has this key more than"),
            ("twice.csv", "answer,answer\nx,y\n", r"twice.csv has 2 columns of this name"),
            ("comma.csv", "answer,b\nx,1\ny,z,2\n", r"line 3 has 3 fields, and the first 2"),
            ("short.csv", "answer,b\nx\n", r"line 2 has 1 fields, and the first 2"),
            ("open.csv", 'answer,b\n"x,1\ny,2\n', r"line 2: unexpected end of data"),
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


class TestTexts:
    """A text is what stands in the file; what other columns hold does not matter."""

    @pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
    @settings(max_examples=5)
    @given(texts=st.lists(st.tuples(ANY_TEXT, ANY_TEXT), min_size=20))
    def test_of_every_format(self, tmp_path_factory, write, texts):
        texts = [*zip(GUESSED, GUESSED[::-1], strict=True), *texts]
        path = write(tmp_path_factory.mktemp("texts"), texts)
        assert read(path) == texts

    def test_words_do_not_make_numbers_of_what_follows(self, tmp_path):
        words = [f"word{i}" for i in range(10_000)]
        texts = [("q", answer) for answer in (*words, *GUESSED, "x" * 200_000)]
        assert read(WRITERS["csv"](tmp_path, texts)) == texts

    def test_columns_that_no_option_names(self, tmp_path):
        others = [None, 1, "x", ["x"], {"a": 1}, {"b": "x"}, [], "2020-01-01", int("9" * 4300)]
        rows = [{"q": "q", "a": str(i), "other": other} for i, other in enumerate(others)]
        path = write_lines(tmp_path / "rows.jsonl", [*rows, {"q": "q", "a": "last"}])
        path.write_text(
            path.read_text()
            .replace("999}", "99999}")
            .replace('"q": "q"', '"b": 1, "b": 2, "q": "q"')
        )
        assert [a for _, a in read(path)] == [*map(str, range(len(others))), "last"]

    def test_a_json_file_of_one_object_or_one_a_line(self, tmp_path):
        path = tmp_path / "rows.json"
        path.write_text(json.dumps({"q": "q", "a": "x"}, indent=1))
        assert read(path) == [("q", "x")]
        path.write_text('\n{"q": "q", "a": "x"}\n\n{"q": "q", "a": "y"}')
        assert read(path) == [("q", "x"), ("q", "y")]


class TestPaths:
    """A path names one file, and its content decides."""

    @pytest.mark.parametrize(
        ("name", "beside"),
        [
            ("pairs[1].jsonl", "pairs1.jsonl"),
            ("run[a-c].jsonl", "runb.jsonl"),
            ("a*.jsonl", "ab.jsonl"),
            ("what?.jsonl", "what1.jsonl"),
            ("zip::x.jsonl", "x.jsonl"),
            ("{a,b}.jsonl", "a.jsonl"),
            ("s3:/x.jsonl", "x.jsonl"),
        ],
    )
    def test_nothing_in_a_name_is_a_pattern(self, tmp_path, name, beside):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        write_lines(path, [{"q": "q", "a": "own"}])
        write_lines(tmp_path / beside, [{"q": "q", "a": "another's"}])
        assert read(path) == [("q", "own")]

    @pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "json", "csv", "parquet"])
    def test_other_content_under_the_same_time(self, tmp_path, suffix):
        for texts in ([("q", "old")], [("q", "new")], [("q", "new"), ("q", "more")]):
            path = WRITERS[suffix](tmp_path, texts)
            os.utime(path, (1_600_000_000, 1_600_000_000))
            assert read(path) == texts

    def test_the_same_content_under_another_name_or_format(self, tmp_path):
        path = WRITERS["jsonl"](tmp_path, [("q", "x")])
        assert read(path) == read(path.rename(tmp_path / "b.jsonl")) == [("q", "x")]
        with pytest.raises(UserError, match=r"b\.jsonl\.gz: cannot be read: Not a gzipped file"):
            read((tmp_path / "b.jsonl").rename(tmp_path / "b.jsonl.gz"))

    def test_other_columns_of_the_same_file(self, tmp_path):
        path = WRITERS["jsonl"](tmp_path, [("q", "x")])
        assert read(path) == [("q", "x")]
        assert read(path, prompt="a", completion="q") == [("x", "q")]

    def test_nothing_is_kept_of_a_file_that_cannot_be_read(self, tmp_path, cache):
        path = write_lines(tmp_path / "rows.jsonl", [{"q": "q", "a": "x"}] * 5000 + [{"q": "q"}])
        kept = [file for file in cache.rglob("*") if file.suffix != ".lock"]
        with pytest.raises(UserError, match=r"row 5001 has no such column; there are: q"):
            read(path)
        assert [file for file in cache.rglob("*") if file.suffix != ".lock"] == kept

    def test_a_file_that_changes_while_it_is_read(self, tmp_path, monkeypatch):
        path = WRITERS["jsonl"](tmp_path, [("q", "changes")])
        monkeypatch.setattr("ebft.data.stored._batches", lambda rows, _: path.write_text("") or [])
        with pytest.raises(UserError, match=r"rows\.jsonl: was changed while it was read"):
            read(path)

    def test_a_cache_that_is_damaged(self, tmp_path, cache):
        path = WRITERS["jsonl"](tmp_path, [("q", "damaged")])
        before = {*cache.rglob("*.arrow")}
        read(path)
        (kept,) = {*cache.rglob("*.arrow")} - before
        kept.write_bytes(kept.read_bytes()[:50])
        with pytest.raises(
            UserError, match=f"{kept}: is damaged, and holds the texts of data.path"
        ):
            read(path)

    def test_a_cache_that_cannot_be_written(self, tmp_path, monkeypatch):
        path = WRITERS["jsonl"](tmp_path, [("q", "x")])
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", path)
        with pytest.raises(UserError, match=r"cannot be written \(Not a directory\).*HF_DATASETS"):
            read(path)
