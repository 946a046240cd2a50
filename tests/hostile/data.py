# ruff: noqa: E501 — a case is one line
"""Data sets that must be refused with one line."""

import json
import os
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq

from tests.hostile.case import Case, Inputs

PAIRS = ["plan=completion", "~plan.start", "~plan.stride", "evaluation.evaluators=[]"]
ROW = {"q": "q", "a": "a"}
TASK = {"task_id": 601, "text": "t", "code": "c", "test_list": ["a"], "test_setup_code": ""}
CHAT = [{"role": "user", "content": "u" * 100_000}, {"role": "assistant", "content": "a"}]
ESCAPES = {f"\x1b[31m{i}\n": "" for i in range(500)}


def pairs(name: str, content: str | bytes, *more: str):
    """Overrides that read a file of this content with the columns q and a."""

    def make(inputs: Inputs) -> list[str]:
        file = inputs.write(name, content)
        columns = ["data=files", f"data.path={file}", "data.prompt=q", "data.completion=a"]
        return [*columns, *PAIRS, *more]

    return make


def rows(*rows: dict, name: str = "rows.jsonl"):
    """Overrides that read these rows."""
    return pairs(name, "".join(json.dumps(row) + "\n" for row in rows))


def parquet(**columns):
    """Overrides that read a Parquet file of these columns."""
    stream = BytesIO()
    pq.write_table(pa.table(columns), stream)
    return pairs("rows.parquet", stream.getvalue())


def of(source: str, name: str, content: str | bytes):
    """Overrides that read a file of this content with another source."""

    def make(inputs: Inputs) -> list[str]:
        file = inputs.write(name, content)
        return [f"data={source}", f"data.path={file}", "~data.held_out", *PAIRS]

    return make


def pipe(inputs: Inputs) -> list[str]:
    os.mkfifo(inputs.folder / "pipe.jsonl")
    return ["data=files", f"data.path={inputs.folder}/pipe.jsonl", "data.completion=a"]


def gettext(*more: str, content: bytes = b""):
    def make(inputs: Inputs) -> list[str]:
        inputs.write("de/LC_MESSAGES/a.mo", content)
        return ["data=gettext", f"data.path={inputs.folder}", *PAIRS, *more]

    return make


CASES = [
    Case("no file", pairs("x.jsonl", "", "data.path=gone.jsonl"), "data.path = gone.jsonl: no such file"),
    Case("a folder without Python", lambda it: [f"data.path={it.folder}"], "no .py file with text in it"),
    Case("no such column", rows({"q": "q", "answer": "a"}), "data.completion = a: rows.jsonl, row 1 has no such column; there are: q, answer"),
    Case("an empty file", pairs("empty.jsonl", ""), "empty.jsonl: the file is empty"),
    Case("a line cut off", pairs("cut.jsonl", '{"q": "", "a": ""}\n{"q":'), "line 2 is not JSON"),
    Case("a long number in a damaged line", pairs("x.jsonl", '{"n": ' + "1" * 5000 + ","), "line 1 is not JSON (Expecting property name"),
    Case("a line of another format", pairs("x.jsonl", "\x1b[2J" * 9999), "line 1 is not JSON"),
    Case("a pipe", pipe, "pipe.jsonl: it is a folder, a pipe or a device, not a regular file"),
    Case("UTF-16", pairs("x.csv", "q,a\nq,a\n".encode("utf-16")), "x.csv: is not UTF-8 (byte 0xff)"),
    Case("no gzip", pairs("x.csv.gz", "q,a\n"), "x.csv.gz: cannot be read: Not a gzipped file"),
    Case("gzip cut off", pairs("x.json.gz", b"\x1f\x8b\x08\0"), "x.json.gz: cannot be read: Compressed"),
    Case("a chat", rows(ROW | {"a": CHAT}), "a: rows.jsonl, row 1 has the messages of a chat there"),
    Case("a chat of another kind", rows(ROW | {"a": [{"from": "human", "value": ""}]}), "of a chat"),
    Case("a long value", rows(ROW, ROW | {"a": ["x" * 10**5] * 99}), "row 2 has ['xxxxxxx"),
    Case("a deep value", rows(ROW | {"a": json.loads("[" * 200 + "]" * 200)}), "row 1 has [[["),
    Case("a number", rows(ROW, ROW | {"a": 5}), "data.completion = a: rows.jsonl, row 2 has 5 there"),
    Case("half a surrogate pair", rows(ROW, ROW | {"q": "x\ud83d"}), r"has half a surrogate pair there, which is not a character: 'x\ud83d'; repair"),
    Case("a key twice", pairs("x.jsonl", '{"q": "", "a": "b", "\\u0061": "c"}'), "data.completion = a: x.jsonl, row 1 has this key more than once"),
    Case("columns with escapes", rows(ESCAPES), r"no such column; there are: '\x1b[31m0\n'"),
    Case("CSV without the column", pairs("x.csv", "q; a\nx; y\n"), "data.prompt = q: x.csv has no such column; there are: q; a"),
    Case("CSV with a column twice", pairs("x.csv", "q,a,a\n1,2,3\n"), "data.completion = a: x.csv has 2 columns of this name"),
    Case("CSV with a comma in a text", pairs("x.csv", "q,a\n1,2\n1,2,3\n"), "x.csv: line 3 has 3 fields, and the first 2"),
    Case("CSV with an open quote", pairs("x.csv", 'q,a\n1,"2\n1,2\n'), "x.csv: line 2: unexpected end of data"),
    Case("CSV of its header", pairs("x.csv", "q,a\n"), "x.csv: the file has no rows"),
    Case("Parquet with numbers", parquet(q=["q"], a=[0.5]), "data.completion = a: rows.parquet, row 1 has 0.5 there"),
    Case("Parquet without the column", parquet(q=["q"], d=[{"a": "x"}]), "data.completion = a: rows.parquet has no such column; there are: q, d"),
    Case("Parquet in another encoding", parquet(q=["q"], a=pa.array([b"\xe9"]).view(pa.string())), "rows.parquet: is not UTF-8 (byte 0xe9)"),
    Case("Parquet cut off", pairs("x.parquet", b"PAR1" + bytes(99)), "x.parquet: cannot be read: Parquet magic"),
    Case("gsm8k: half a surrogate pair", of("gsm8k", "x.jsonl", '{"question": "\\udead", "answer": "#### 5"}'), r"x.jsonl: line 1, question: has half a surrogate pair there"),
    Case("mbpp: a number among the tests", of("mbpp", "x.jsonl", json.dumps(TASK | {"test_list": ["a", 5]})), "x.jsonl: line 1, test_list: has 5 there"),
    Case("mbpp: a truth for a number", of("mbpp", "x.jsonl", json.dumps(TASK | {"task_id": True})), "x.jsonl: line 1, task_id: has True there; this is of type int"),
    Case("humaneval: no test", of("humaneval", "x.jsonl", '{"task_id": "1"}'), "x.jsonl: line 1 has no 'prompt'; there are: task_id"),
    Case("gettext: a damaged catalogue", gettext(content=b"\xde\x12\x04\x95" + bytes(10)), "de/LC_MESSAGES/a.mo: cannot be read"),
    Case("gettext: a pattern for a language", gettext("data.languages={'*': German}"), "data.languages = {'*': 'German'}: '*' is not a folder of a locale"),
    Case("gettext: a package without a place", gettext("data.package=__main__", "data.path=null"), "data.package = __main__: no package of this name is installed"),
    Case("a package within a package", lambda it: [f"data.path={it.texts}", "data.out_of_distribution=[no.such]"], "data.out_of_distribution: no.such: neither a package under"),
]  # fmt: skip
