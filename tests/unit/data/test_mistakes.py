"""Several mistakes in the rows of a data set: all of them in one error, with their rows."""

import json

import datasets
import pytest

from ebft.data.files import Files
from ebft.data.mistakes import MOST
from ebft.data.rows import Rows
from ebft.errors import UserError

ASKED = {"role": "user", "content": "Hi"}
GOOD = [ASKED, {"role": "assistant", "content": "Hello"}]
EMPTY = [ASKED, {"role": "assistant", "content": " "}]
STRANGE = [{"role": "narrator", "content": "x"}]
AT = "data.messages = messages: chat.jsonl, row {}"
SAYS = {
    "empty": "message 2: the assistant's turn is empty; leave the row out",
    "strange": "message 1 has the role 'narrator'; roles are system, user, assistant, tool",
    "missing": " has no such column; there are: id; name another column, or leave the row out",
    "twice": " has this key more than once; keep one",
    "no JSON": "data.path = {}: line {} is not JSON (",
}


def line_of(kind, number):
    if kind == "missing":
        return '{"id": 1}'
    if kind == "no JSON":
        return '{"messages": '
    if kind == "twice":
        return '{"messages": [], "messages": []}'
    talk = {"good": GOOD, "empty": EMPTY, "strange": STRANGE}[kind]
    return json.dumps({"messages": [*talk, {"role": "user", "content": str(number)}]})


def lines_of(error):
    return str(error.value).split("\n")


def read(folder, kinds):
    path = folder / "chat.jsonl"
    path.write_text("\n".join(line_of(kind, i) for i, kind in enumerate(kinds)) + "\n")
    return path, Files(path=path, messages="messages")


@pytest.mark.parametrize(
    "kinds",
    [
        ["empty"],
        ["good", "empty", "good", "strange", "missing", "twice"],
        ["strange", "no JSON"],  # after which rows are not found
        ["good", "missing", "no JSON", "empty"],
    ],
)
def test_each_bad_row_has_a_line(tmp_path, kinds):
    path, files = read(tmp_path, kinds)
    with pytest.raises(UserError) as error:
        files()
    until = kinds.index("no JSON") + 1 if "no JSON" in kinds else len(kinds)
    bad = [(number, it) for number, it in enumerate(kinds[:until], 1) if it != "good"]
    lines = lines_of(error)
    assert len(lines) == len(bad)
    for line, (number, kind) in zip(lines, bad, strict=True):
        start = SAYS[kind].format(path, number) if kind == "no JSON" else AT.format(number)
        assert line.startswith(start)
        assert kind == "no JSON" or SAYS[kind] in line


@pytest.mark.parametrize("more", [-1, 0, 5])
def test_no_more_than_a_few_are_listed(tmp_path, more):
    _, files = read(tmp_path, ["good", *["empty"] * (MOST + more)])
    with pytest.raises(UserError) as error:
        files()
    *rows, last = lines_of(error)
    assert ("there may be more" in last) == (more >= 0)
    assert len(rows) == MOST - (more < 0) * 2
    assert [line.partition(", message")[0] for line in rows] == [
        AT.format(number) for number in range(2, len(rows) + 2)
    ]


def test_a_column_that_the_first_row_lacks_is_one_mistake(tmp_path):
    _, files = read(tmp_path, ["missing"] * 5)
    with pytest.raises(UserError) as error:
        files()
    assert lines_of(error) == [f"{AT.format(1)}{SAYS['missing']}"]


def test_rows_of_a_data_set_that_are_read_together(tmp_path):
    talks = [GOOD, EMPTY, GOOD, STRANGE]
    rows = Rows(datasets.Dataset.from_dict({"m": talks}), {"messages": "m"}, "o/n")
    assert len(rows[0:1]) == 1
    with pytest.raises(UserError) as error:
        rows[0:4]
    assert [line.partition(", message")[0] for line in lines_of(error)] == [
        "data.messages = m: o/n, row 2", "data.messages = m: o/n, row 4",
    ]  # fmt: skip
