"""State goes to disk and comes back as it was, to the last bit; what cannot is named."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ebft.checkpoints.nested import read_nested, write_nested

TENSORS = st.sampled_from(
    [torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
).flatmap(
    lambda dtype: st.lists(st.integers(0, 3), max_size=3).map(
        lambda shape: torch.arange(math.prod(shape)).reshape(shape).to(dtype)
    )
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | TENSORS
STATES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner)
    ),
    max_leaves=12,
)


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


@given(state=STATES)
def test_it_comes_back(state, tmp_path_factory):
    file = tmp_path_factory.mktemp("state") / "state"
    write_nested(state, file)
    assert same(read_nested(file), state)


def test_names_that_collide_do_not_mix(tmp_path):
    state = {"a": {"b": torch.tensor(1)}, "a.b": torch.tensor(2), "$tensor": "a"}
    write_nested(state, tmp_path / "state")
    assert same(read_nested(tmp_path / "state"), state)


def test_tensors_that_share_memory(tmp_path):
    whole = torch.arange(6.0).reshape(2, 3)
    state = {"whole": whole, "row": whole[0], "turned": whole.T, "again": whole}
    write_nested(state, tmp_path / "state")
    assert same(read_nested(tmp_path / "state"), state)


@pytest.mark.parametrize("bad", [{1, 2}, object(), torch.nn.Linear(1, 1), {(1, 2): 3}])
def test_what_has_no_place_is_named(tmp_path, bad):
    with pytest.raises(TypeError, match=r"^parts\.baseline\.1 is a "):
        write_nested({"parts": {"baseline": [0, bad]}}, tmp_path / "state")


@pytest.mark.parametrize(
    "structure", ["{", '{"$tensor": "gone"}', '{"$items": 3}', '{"$items": [1]}']
)
def test_files_that_hold_no_state(tmp_path, structure):
    write_nested({"a": torch.ones(1)}, tmp_path / "state")
    (tmp_path / "state.json").write_text(structure)
    with pytest.raises(ValueError, match="hold no state"):
        read_nested(tmp_path / "state")


def test_there_is_no_pickle(tmp_path):
    write_nested({"a": torch.ones(2)}, tmp_path / "state")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.json", "state.safetensors"]
    json.loads((tmp_path / "state.json").read_text())
