"""What is read back is of its type, of bounded depth, and from a file; or the field is named."""

import json
import os
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from ebft.files import (  # fmt: skip
    DEEPEST,
    Count,
    Number,
    Text,
    check_regular,
    parse_json,
    read_text,
    record,
    whole_lines,
)


@dataclass(frozen=True)
class Thing:
    name: Text
    counts: list[Count]
    figure: Number


THING = TypeAdapter(Thing)


def test_a_record():
    assert record({"name": "a", "counts": [1], "figure": 2}, THING) == Thing("a", [1], 2.0)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"counts": [0, -1]}, r"^counts\.1 = -1: it must be greater than or equal to 0$"),
        ({"counts": [2**63]}, r"^counts\.0 = 9223372036854775808: it must be less than"),
        ({"counts": [True]}, r"^counts\.0 = True: it must be a valid integer$"),
        ({"counts": "12"}, "^counts = '12': it must be a valid list$"),
        ({"name": 1}, "^name = 1: it must be a valid string$"),
        ({"figure": "1"}, "^figure = '1': it must be a valid number$"),
        ({"name": ["x" * 10**6]}, "^name = .{40}: it must"),
    ],
)
def test_a_field_of_another_kind_is_named(changed, says):
    with pytest.raises(ValueError, match=says):
        record({"name": "a", "counts": [1], "figure": 2, **changed}, THING)


def test_a_missing_field_is_named_and_no_object_too():
    with pytest.raises(ValueError, match=r"^figure is missing$"):
        record({"name": "a", "counts": []}, THING)
    with pytest.raises(ValueError, match=r"^it must be an object$"):
        record([], THING)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_json_is_read_as_it_is(value):
    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize("levels", [DEEPEST + 1, 900, 10**5])
@pytest.mark.parametrize("ends", ["[]", ['{"a":', "1}"]])
def test_what_is_nested_deeper_than_python_can_follow(levels, ends):
    assert parse_json("[" * (DEEPEST - 1) + "]" * (DEEPEST - 1)) is not None
    opening, closing = ends
    inner = "" if opening == "[" else "1"
    with pytest.raises(ValueError, match="nested more than 100 levels"):
        parse_json(opening * levels + inner + closing.lstrip("1") * levels)


def test_whole_lines():
    assert list(whole_lines("a\n\nb\nc")) == [(1, "a"), (3, "b")]


def test_only_a_regular_file_is_read(tmp_path):
    file, pipe, link = tmp_path / "file", tmp_path / "pipe", tmp_path / "link"
    file.write_text("é", encoding="utf-8")
    os.mkfifo(pipe)
    link.symlink_to("/dev/zero")
    assert read_text(file) == "é"
    for other in (pipe, link, tmp_path):
        with pytest.raises(ValueError, match="not a regular file"):
            check_regular(other)
